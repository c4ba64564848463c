"""What stands around an operator that is looked at: a net of few layers, in which a body of text makes `z` of `a`."""

from nets.notation import Net

DOMAIN = ', "com.microsoft" : 1'
"""The domain of onnxruntime's own operators, as the head of a net's text imports it."""

SCALES = "uint8 zx = {128}, int8 zw = {0}, float sx = {0.02}, float sw = {0.01}"
"""Zero points and scales: asymmetric for what flows, symmetric for weights."""


def ort(op: str) -> str:
    """Return how an operator of onnxruntime's own is spelled."""
    return f"com.microsoft.{op}"


def on_map(body: str, weights: str = "", *, wide: int = 8, given: str = "", opset: int = 21) -> Net:
    """Return a net in which `body` makes `z`, of `wide` channels, from the feature map `a` ``[2, 8, 4, 4]``."""
    text = f"""(float[2,3,4,4] x) => (float[2,5,height,width] y) {f"<{given}>" if given else ""} {{
        a = Conv(x, w1, b1) {body} h = Conv(z, w2, b2) r = Relu(h) y = Conv(r, w3, b3)
    }}"""
    layers = f"w1 8x3x1x1, b1 8, w2 6x{wide}x1x1, b2 6, w3 5x6x1x1, b3 5"
    return Net(text, f"{layers}, {weights}", opset=opset, domains=DOMAIN)


def on_tokens(
    body: str, weights: str = "", *, width: int = 8, wide: int = 8, given: str = "", opset: int = 21, seq: int = 4
) -> Net:
    """Return a net in which `body` makes `z`, of `wide` channels, from the tokens `a` ``[2, seq, width]``."""
    text = f"""(float[2,{seq},6] x) => (float[outer,tokens,5] y) {f"<{given}>" if given else ""} {{
        a = MatMul(x, w1) {body} h = MatMul(z, w2) r = Relu(h) y = MatMul(r, w3)
    }}"""
    layers = f"w1 6x{width}, w2 {wide}x6, w3 6x5"
    return Net(text, f"{layers}, {weights}", opset=opset, domains=DOMAIN)
