"""Recommenders, graphs, and rows of a table, as nets for them are spelt in public code."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DeepFm(nn.Module):
    """Fields embedded in one table by offsets; a factorisation machine, the square of sums, beside a deep net."""

    def __init__(self, fields: int = 4, size: int = 10, width: int = 8) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(fields * size, width), nn.Embedding(fields * size, 1)
        self.register_buffer("offsets", torch.arange(fields) * size)
        self.deep = nn.Sequential(
            nn.Linear(fields * width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
        )
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, fields: Tensor) -> Tensor:
        fields = fields + self.offsets.unsqueeze(0)
        x = self.embed(fields)
        pairs = 0.5 * (x.sum(1).pow(2) - x.pow(2).sum(1)).sum(1, keepdim=True)
        deep = self.deep(x.view(-1, x.shape[1] * x.shape[2]))
        return torch.sigmoid(self.linear(fields).sum(1) + self.bias + pairs + deep).squeeze(1)


class CompressedInteractions(nn.Module):
    """xDeepFM: outer products of fields, compressed by convolutions, half of them passed on."""

    def __init__(self, fields: int = 4, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, width)
        self.first, self.second = nn.Conv1d(fields * fields, 12, 1), nn.Conv1d(6 * fields, 8, 1)
        self.out = nn.Linear(6 + 8, 1)
        self.deep = nn.Sequential(nn.Linear(fields * width, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, fields: Tensor) -> Tensor:
        x = self.embed(fields)
        b, n, d = x.shape
        start, hidden, results = x.unsqueeze(2), x, []
        for k, conv in enumerate((self.first, self.second)):
            y = (start * hidden.unsqueeze(1)).view(b, n * hidden.shape[1], d)
            y = F.relu(conv(y))
            y, hidden = torch.split(y, y.shape[1] // 2, dim=1) if k == 0 else (y, None)
            results.append(y)
        return self.out(torch.cat(results, 1).sum(2)) + self.deep(x.flatten(1))


class FieldAttention(nn.Module):
    """AutoInt: attention among fields, heads split off the width and stacked on the batch; a deep net beside it."""

    def __init__(self, fields: int = 4, width: int = 16) -> None:
        super().__init__()
        self.embed, self.q, self.k, self.v = (
            nn.Embedding(40, 8),
            *(nn.Parameter(torch.randn(8, width) * 0.3) for _ in range(3)),
        )
        self.rest, self.deep = (
            nn.Parameter(torch.randn(8, width) * 0.3),
            nn.Sequential(nn.Linear(8 * fields, 24), nn.ReLU()),
        )
        self.out = nn.Linear(fields * width + 24, 1)

    def forward(self, fields: Tensor) -> Tensor:
        x = self.embed(fields)
        q, k, v = (
            torch.stack(torch.split(torch.tensordot(x, w, dims=([-1], [0])), 8, dim=2))
            for w in (self.q, self.k, self.v)
        )
        weights = F.softmax(torch.einsum("hbik,hbjk->hbij", q, k) / 8**0.5, -1)
        y = torch.cat(torch.split(torch.matmul(weights, v), 1), dim=-1).squeeze(0)
        y = F.relu(y + torch.tensordot(x, self.rest, dims=([-1], [0])))
        return torch.sigmoid(self.out(torch.cat((torch.flatten(y, 1), self.deep(torch.flatten(x, 1))), -1)))


class DotInteractions(nn.Module):
    """DLRM: numbers and bags of words to vectors, whose products below the diagonal are features of a net on top."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(20, width) for _ in range(3))
        self.top = nn.Sequential(nn.Linear(width + 6, 24), nn.ReLU(), nn.Linear(24, 1), nn.Sigmoid())

    def forward(self, numbers: Tensor, words: Tensor) -> Tensor:
        x = self.bottom(numbers)
        vectors = [x, *(table(words[:, k]) for k, table in enumerate(self.tables))]
        b, d = x.shape
        stacked = torch.cat(vectors, 1).view((b, -1, d))
        products = torch.bmm(stacked, torch.transpose(stacked, 1, 2))
        i = torch.tensor([i for i in range(4) for j in range(i)])
        j = torch.tensor([j for i in range(4) for j in range(i)])
        return self.top(torch.cat([x, products[:, i, j]], 1))


class CrossNet(nn.Module):
    """DCN-v2: crosses of low rank with experts that a gate mixes; and wide beside deep."""

    def __init__(self, width: int = 24, rank: int = 6) -> None:
        super().__init__()
        self.i = nn.Linear(12, width)
        self.v, self.c, self.u = (
            nn.Parameter(torch.randn(2, *shape) * 0.3) for shape in ((width, rank), (rank, rank), (width, rank))
        )
        self.gates, self.bias = (
            nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(2)),
            nn.Parameter(torch.zeros(width)),
        )
        self.wide, self.out = nn.Linear(12, 1), nn.Linear(width, 1)

    def forward(self, row: Tensor) -> Tensor:
        start = F.relu(self.i(row)).unsqueeze(2)
        results, gates = [], []
        for k in range(2):
            gates.append(self.gates[k](start.squeeze(2)))
            x = torch.tanh(torch.matmul(self.v[k].t(), start))
            x = torch.matmul(self.u[k], torch.tanh(torch.matmul(self.c[k], x)))
            results.append((start * (x + self.bias[:, None])).squeeze(2))
        y = torch.matmul(torch.stack(results, 2), torch.stack(gates, 1).softmax(1)) + start
        return self.out(y.squeeze(2)) + self.wide(row)


class TabNet(nn.Module):
    """Steps that choose features by a sparsemax (sorted, summed up), each through gated linear units."""

    def __init__(self, inputs: int = 12, width: int = 8) -> None:
        super().__init__()
        self.norm, self.shared = nn.BatchNorm1d(inputs), nn.Linear(inputs, 4 * width)
        self.more = nn.ModuleList(nn.Linear(2 * width, 4 * width) for _ in range(3))
        self.attention = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inputs), nn.BatchNorm1d(inputs)) for _ in range(2)
        )
        self.out = nn.Linear(width, 3)

    @staticmethod
    def sparsemax(x: Tensor) -> Tensor:
        ordered, _ = torch.sort(x, -1, descending=True)
        rank = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        total = ordered.cumsum(-1) - 1
        support = rank * ordered > total
        size = support.sum(-1, keepdim=True)
        return torch.clamp(x - total.gather(-1, size - 1) / size.to(x.dtype), min=0)

    def transform(self, x: Tensor, k: int) -> Tensor:
        x = F.glu(self.shared(x))
        return (x + F.glu(self.more[k](x))) * 0.5**0.5

    def forward(self, row: Tensor) -> Tensor:
        x = self.norm(row)
        prior, total = torch.ones_like(x), 0
        a = self.transform(x, 0)[:, 8:]
        for k, attention in enumerate(self.attention):
            mask = self.sparsemax(attention(a) * prior)
            prior = prior * (1.3 - mask)
            y = self.transform(mask * x, k + 1)
            d, a = y[:, :8], y[:, 8:]
            total = total + F.relu(d)
        return self.out(total)


class GraphConvolutions(nn.Module):
    """GCN: an adjacency normalised in the graph by degrees, self-loops added; then GAT's heads over all pairs."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, width), nn.Linear(width, width, bias=False)
        self.left, self.right = (nn.Parameter(torch.randn(1, 1, heads, width // heads)) for _ in range(2))
        self.heads, self.out = heads, nn.Linear(width, 4)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency + torch.eye(adjacency.size(-1)).unsqueeze(0)
        degrees = a.sum(-1).pow(-0.5)
        a = degrees.unsqueeze(-1) * a * degrees.unsqueeze(-2)
        x = F.relu(torch.bmm(a, self.first(nodes)))
        b, n, _ = x.size()
        h = self.second(x).view(b, n, self.heads, -1)
        scores = (h * self.left).sum(-1).unsqueeze(2) + (h * self.right).sum(-1).unsqueeze(1)
        scores = F.leaky_relu(scores, 0.2).masked_fill(a.unsqueeze(-1) == 0, -1e9)
        y = torch.einsum("bijh,bjhd->bihd", scores.softmax(2), h)
        return self.out(F.elu(y.reshape(b, n, -1)))


class MessagesOnEdges(nn.Module):
    """A graph as a list of edges: messages gathered from their ends, and added up where they point."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.i, self.message = (
            nn.Linear(8, width),
            nn.Sequential(nn.Linear(2 * width, 28), nn.ReLU(), nn.Linear(28, width)),
        )
        self.update, self.out = nn.GRUCell(width, width), nn.Linear(width, 4)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(self.i(nodes))
        source, target = edges[0], edges[1]
        messages = self.message(torch.cat([x.index_select(0, target), x[source]], -1))
        total = torch.zeros(x.size(0), messages.size(1)).index_add(0, target, messages)
        return self.out(self.update(total, x))


class Pairwise(nn.Module):
    """ESIM: two texts through one LSTM, aligned with each other, compared, pooled by means and maxima."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(40, 16), nn.LSTM(16, width, batch_first=True, bidirectional=True)
        self.compare, self.again = nn.Linear(8 * width, 20), nn.LSTM(20, width, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(8 * width, 24), nn.Tanh(), nn.Linear(24, 3))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.encoder(self.embed(left))[0], self.encoder(self.embed(right))[0]
        scores = torch.matmul(a, b.transpose(1, 2))
        pooled = []
        for x, y in ((a, F.softmax(scores, -1) @ b), (b, F.softmax(scores, 1).transpose(1, 2) @ a)):
            z, _ = self.again(F.relu(self.compare(torch.cat([x, y, x - y, x * y], -1))))
            pooled += [z.mean(1), z.max(1)[0]]
        return self.out(torch.cat(pooled, -1))


class RadianceField(nn.Module):
    """NeRF: sines of growing speed of points, a deep net with a skip, density and colour, summed along rays."""

    def __init__(self, width: int = 24, speeds: int = 3) -> None:
        super().__init__()
        self.speeds, size = speeds, 3 + 3 * 2 * speeds
        self.layers = nn.ModuleList([nn.Linear(size, width), nn.Linear(width, width), nn.Linear(width + size, width)])
        self.density, self.feature, self.view = nn.Linear(width, 1), nn.Linear(width, width), nn.Linear(width + 3, 12)
        self.colour = nn.Linear(12, 3)

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([x] + [f(x * 2.0**k) for k in range(self.speeds) for f in (torch.sin, torch.cos)], -1)

    def forward(self, points: Tensor, directions: Tensor) -> Tensor:
        start = self.encode(points)
        x = start
        for k, layer in enumerate(self.layers):
            x = F.relu(layer(torch.cat([start, x], -1) if k == 2 else x))
        density = F.relu(self.density(x))[..., 0]
        views = directions[:, None].expand(points.shape)
        colour = torch.sigmoid(self.colour(F.relu(self.view(torch.cat([self.feature(x), views], -1)))))
        alpha = 1.0 - torch.exp(-density * 0.1)
        gone = torch.cat([torch.zeros((alpha.shape[0], 1)), torch.log(1.0 - alpha + 1e-10)], -1)
        left = torch.exp(torch.cumsum(gone, -1))[:, :-1]
        return torch.sum((alpha * left)[..., None] * colour, -2)
