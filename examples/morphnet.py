"""MorphNet: learn how wide each layer should be, and watch it in TensorBoard.

The net and its images ship with the package. Needs ``pip install "onnxslim-learn[train,tensorboard]"``.
"""

# %%
from pathlib import Path

import onnxruntime as ort
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import onnxslim_learn as osl
from onnxslim_learn import demo

model = str(demo.model_path())
shown = demo.held_out()
train = {"image": shown["image"][::2], "labels": shown["labels"][::2]}

# %% Learn under a bound of half the multiply-accumulates; real runs take thousands of steps.
lengths = {"steps": 60, "finetune_steps": 40, "batch_size": 32, "seed": 0}
slim = osl.learn(model, learner="morphnet", macs=0.5, data=train, checkpoint_dir="run", latency=False, **lengths)
slim.save("slim.onnx")

# %% What `tensorboard --logdir run` shows.
watched = EventAccumulator(str(next(Path("run").rglob("events"))))
watched.Reload()
for tag in sorted(watched.Tags()["scalars"]):
    values = [event.value for event in watched.Scalars(tag)]
    print(f"{tag:35} {values[0]:10.4g} at first, {values[-1]:10.4g} at last, of {len(values)} steps")

# %%
print("file        MACs  accuracy")
for file, count in ((model, slim.report["before"]), ("slim.onnx", slim.report["after"])):
    (logits,) = ort.InferenceSession(file).run(None, {"image": shown["image"][1::2]})
    right = (logits.argmax(1) == shown["labels"][1::2]).mean()
    print(f"{Path(file).name:11} {count['macs'] / slim.report['before']['macs']:4.0%} {right:9.1%}")

# %%
table = slim.to_frame()
print(table[["name", "width", "kept"]].to_string(index=False))
