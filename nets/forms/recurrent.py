"""Recurrent cells, of numbers and of integers."""

from nets.frames import on_tokens, ort
from nets.notation import Net, random_bytes


def _directions(op: str, gates: int) -> dict[str, Net]:
    """A cell in every direction, with its weights alone and with all inputs that it may have."""
    nets = {}
    states, peepholes = ("h0, c0", ", p4") if op == "LSTM" else ("h0", "")
    for way, number in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        flat = f"q1 = Transpose<perm=[0,2,1,3]>(s) q = Reshape(q1, [4, 2, {5 * number}])"
        tail = f"{flat} z = Transpose<perm=[1,0,2]>(q)"
        weights = f"w4 {number}x{5 * gates}x8, r4 {number}x{5 * gates}x5"
        starts = ", ".join(f"{s} {number}x2x5" for s in states.split(", "))
        head = f't = Transpose<perm=[1,0,2]>(a) s, = {op}<hidden_size=5, direction="{way}"'
        nets[f"{op}_{way}"] = on_tokens(f"{head}>(t, w4, r4) {tail}", weights, wide=5 * number)
        nets[f"{op}_{way}_all"] = on_tokens(
            f"{head}>(t, w4, r4, b4, ends, {states}{peepholes}) {tail}",
            f"{weights}, b4 {number}x{10 * gates}, {starts}" + (f", p4 {number}x15" if peepholes else ""),
            wide=5 * number,
            given="int32[2] ends = {4, 3}",
        )
    return nets


def _cells() -> dict[str, Net]:
    nets = {}
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        nets |= _directions(op, gates)
        nets[f"{op}_final"] = on_tokens(
            f"""t = Transpose<perm=[1,0,2]>(a) , f = {op}<hidden_size=5>(t, w4, r4, b4) g = Squeeze(f, [0])
                z = Unsqueeze(g, [1])""",
            f"w4 1x{5 * gates}x8, r4 1x{5 * gates}x5, b4 1x{10 * gates}",
            wide=5,
        )
        nets[f"{op}_batch_first"] = on_tokens(
            f"s, = {op}<hidden_size=5, layout=1>(a, w4, r4, b4) z = Squeeze(s, [2])",
            f"w4 1x{5 * gates}x8, r4 1x{5 * gates}x5, b4 1x{10 * gates}",
            wide=5,
        )
    nets["GRU_reset_after"] = on_tokens(
        """t = Transpose<perm=[1,0,2]>(a) s, = GRU<hidden_size=5, linear_before_reset=1>(t, w4, r4, b4)
            q = Squeeze(s, [1]) z = Transpose<perm=[1,0,2]>(q)""",
        "w4 1x15x8, r4 1x15x5, b4 1x30",
        wide=5,
    )
    nets["LSTM_forget"] = on_tokens(
        """t = Transpose<perm=[1,0,2]>(a) , e, c = LSTM<hidden_size=5, clip=3.0>(t, w4, r4, b4) d = Add(e, c)
            z = Transpose<perm=[1,0,2]>(d)""",
        "w4 1x20x8, r4 1x20x5, b4 1x40",
        wide=5,
    )
    return nets


def _quantized_cells() -> dict[str, Net]:
    """A cell with integer weights: stacked in both directions, a zero point each; by column, with all inputs."""
    op, tail = ort("DynamicQuantizeLSTM"), "q1 = Transpose<perm=[0,2,1,3]>(s) q = Reshape(q1, [4, 2, 10])"
    signed = "float[2] sw = {0.01, 0.02}, int8[2] zw = {0, 0}"
    columns, nothing = ", ".join(["0.01", "0.02", "0.005", "0.015"] * 10), ", ".join(["0"] * 40)
    return {
        "DynamicQuantizeLSTM_stacked": on_tokens(
            f"""t = Transpose<perm=[1,0,2]>(a)
                s1, = {op}<hidden_size=5, direction="bidirectional">(t, w4, r4, b4, , , , , sx, zx, sx, zx)
                t1 = Transpose<perm=[0,2,1,3]>(s1) u = Reshape(t1, [4, 2, 10])
                s, = {op}<hidden_size=5, direction="bidirectional">(u, w5, r5, b5, , , , , sw, zw, sw, zw)
                {tail} z = Transpose<perm=[1,0,2]>(q)""",
            "w5 2x10x20:int8, r5 2x5x20:int8, b4 b5 2x40",
            wide=10,
            given=f"""float[2] sx = {{0.01, 0.02}}, uint8[2] zx = {{128, 120}}, {signed},
                {random_bytes("w4", 2, 8, 20)}, {random_bytes("r4", 2, 5, 20)}""",
        ),
        "DynamicQuantizeLSTM_all": on_tokens(
            f"""t = Transpose<perm=[1,0,2]>(a)
                s, = {op}<hidden_size=5, direction="bidirectional">(t, w4, r4, b4, ends, h0, c0, p4, sw, zw, sw, zw)
                {tail} z = Transpose<perm=[1,0,2]>(q)""",
            "w4 2x8x20:int8, r4 2x5x20:int8, b4 2x40, h0 c0 2x2x5, p4 2x15",
            wide=10,
            given=f"int32[2] ends = {{4, 3}}, float[2,20] sw = {{{columns}}}, int8[2,20] zw = {{{nothing}}}",
        ),
    }


CELLS = _cells() | _quantized_cells()
