"""Train a YOLO detector with boxes: `onnxslim-learn learn yolov8n.onnx ... --loss yolo_loss:loss --data boxes:batches`.

It takes the output that Ultralytics export of YOLOv8 to YOLO11, ``(samples, 4 + classes, anchors)`` with centres,
widths and heights in pixels and a probability for each class, and labels ``{"boxes": ..., "classes": ...}``: of each
image corners ``(objects, 4)`` in pixels and classes ``(objects,)``, of which images have differently many.

Anchors are assigned to objects as in TOOD (Feng et al. 2021, arXiv:2108.07755): those of the best product of score and
overlap; boxes are fitted by generalised overlap (Rezatofighi et al. 2019, arXiv:1902.09630).
"""

import torch
import torch.nn.functional as F

BEST = 10  # anchors of an object
SCORE, OVERLAP = 0.5, 6.0  # powers, as in YOLOv8
BOXES = 7.5  # weight of boxes, as in YOLOv8


def loss(outputs, labels):
    """Return the loss of a batch: cross-entropy of classes and, of assigned anchors, one minus generalised overlap."""
    output = next(iter(outputs.values()))
    centres, sizes, scores = output[:, :2], output[:, 2:4], output[:, 4:].clamp(1e-6, 1 - 1e-6)
    corners = torch.cat([centres - sizes / 2, centres + sizes / 2], 1).transpose(1, 2)
    total, assigned = output.new_zeros(()), 1.0
    truths = zip(labels["boxes"], labels["classes"], strict=True)
    for box, score, (boxes, classes) in zip(corners, scores.transpose(1, 2), truths, strict=True):
        wanted = torch.zeros_like(score)
        if len(boxes):
            truth, kinds = boxes.to(box.dtype).reshape(-1, 4), classes.long()
            anchor, thing, weight = assign(box.detach(), score.detach(), truth, kinds)
            wanted[anchor, kinds[thing]] = weight
            total = total + BOXES * ((1 - overlaps(box[anchor], truth[thing])[1]) * weight).sum()
            assigned += float(weight.sum())
        total = total + F.binary_cross_entropy(score, wanted, reduction="sum")
    return total / assigned


def assign(box, score, truth, classes):
    """Return anchors, the objects they are assigned to, and how well they fit, from 0 to 1; one object an anchor."""
    overlap = overlaps(box[:, None], truth[None])[0].clamp_min(1e-9)
    fit = score[:, classes] ** SCORE * overlap**OVERLAP
    kept = torch.zeros_like(fit, dtype=torch.bool).scatter_(0, fit.topk(min(BEST, len(fit)), 0).indices, value=True)
    anchor = kept.any(1).nonzero()[:, 0]
    thing = fit.masked_fill(~kept, -1)[anchor].argmax(1)
    share = fit[anchor, thing] / fit.masked_fill(~kept, 0).amax(0)[thing].clamp_min(1e-30)
    return anchor, thing, share * overlap.amax(0)[thing].clamp_min(0.1)


def overlaps(a, b):
    """Return intersection over union of boxes given by corners, and its generalisation to boxes that lie apart."""

    def area(low, high):
        return (high - low).clamp_min(0).prod(-1)

    both = area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    union = area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - both
    hull = area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    return both / union.clamp_min(1e-9), both / union.clamp_min(1e-9) - (hull - union) / hull.clamp_min(1e-9)
