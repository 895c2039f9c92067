"""What a worker does in the tests of many workers: `python training_worker.py SCENE FOLDER`, with TF_CONFIG set.

Each scene leaves its numbers and what it was told in FOLDER, in files named after the scene and the worker.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import cnnkit
from cnnkit import SGD, Adam, AvgPool2D, Conv2D, Dataset, Dense, Dropout, Flatten, Model, Rescale, Softmax
from cnnkit.errors import BackendError
from cnnkit.history import Progress

MODEL = Model(
    name="workers",
    input_shape=(8, 7, 2),
    layers=[
        Conv2D(filters=3, kernel_size=3, activation="relu"),
        Dropout(rate=0.3),
        AvgPool2D(pool_size=2),
        Flatten(),
        Dense(units=4, activation="tanh"),
        Dropout(rate=0.2),
        Dense(units=3),
        Softmax(),
    ],
)
PIXELS = Model(name="pixels", input_shape=(8, 7, 2), layers=[Rescale(scale=1 / 255), *MODEL.layers])
SETTINGS = {"optimizer": SGD(0.1, momentum=0.9, clip_global_norm=0.5), "batch_size": 20, "epochs": 3, "seed": 5}
"""101 images by 20 are five batches and one of a single image, of which one worker has nothing."""
COUNTS = (1, 2, 3, 7, 16)


def data_of(dtype="float32"):
    random = np.random.default_rng(3)
    if dtype == "uint8":
        return Dataset(random.integers(0, 256, (101, 8, 7, 2), np.uint8), random.integers(0, 3, 101))
    return Dataset(random.normal(size=(101, 8, 7, 2)).astype(dtype), random.integers(0, 3, 101))


def long_data():
    """Several pieces an epoch."""
    random = np.random.default_rng(4)
    return Dataset(random.normal(size=(1500, 8, 7, 2)).astype("float32"), random.integers(0, 3, 1500))


LONG_SETTINGS = {"optimizer": Adam(1e-3), "batch_size": 128, "epochs": 12, "seed": 5, "checkpoint_seconds": 1000}
"""Saved at each epoch's end only, however slow the machine is."""


def trained(backend, precision="float32"):
    return cnnkit.fit(MODEL, data_of(precision), backend=backend, **SETTINGS).state


def arrays_of(state):
    slots = {f"{slot}/{name}": array for slot, part in state.slots.items() for name, array in part.items()}
    return {**state.parameters, **slots, "step": np.array(state.step)}


def gradients_of(backend, precision):
    """Gradients of batches of several sizes, in the state of five steps, so that masks are not those of the first."""
    optimizer = SGD(0.1)
    data = data_of(precision)
    program = backend.compile_training(MODEL.plan(), cnnkit.initial_state(MODEL, optimizer, 5, precision), optimizer)
    for _ in range(5):
        program.step(data.images[:6], data.labels[:6])
    found = {}
    for count in COUNTS:
        loss, gradients = program.gradients(data.images[-count:], data.labels[-count:])
        found |= {f"{precision} {count} {name}": array for name, array in gradients.items()}
        found[f"{precision} {count} loss"] = np.array(loss)
    return found


def side_by_side(backend, rank):
    """Two programs in two threads, which begin their steps in another order on each worker."""
    data = data_of()
    optimizer = SGD(0.05)
    programs = [
        backend.compile_training(MODEL.plan(), cnnkit.initial_state(MODEL, optimizer, seed), optimizer)
        for seed in (1, 2)
    ]

    def run(number):
        time.sleep(0.2 * (number ^ rank))
        for start in range(0, 80, 8):
            programs[number].step(data.images[start : start + 8], data.labels[start : start + 8])

    threads = [threading.Thread(target=run, args=[number]) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        f"{number} {name}": array for number in (0, 1) for name, array in arrays_of(programs[number].state()).items()
    }


def said_by(call):
    """The message of the error that `call` raises."""
    try:
        call()
    except BackendError as error:
        return str(error)
    return "nothing"


def together(folder, rank, backend):
    doubles = cnnkit.get_backend("tensorflow", precision="float64", strategy="multi-worker", timeout=40)
    data = data_of()
    np.savez(folder / f"fit-{rank}.npz", **arrays_of(trained(backend)))
    np.savez(folder / f"fit64-{rank}.npz", **arrays_of(trained(doubles, "float64")))
    pixels = cnnkit.fit(PIXELS, data_of("uint8"), backend=backend, **SETTINGS).state
    np.savez(folder / f"pixels-{rank}.npz", **arrays_of(pixels))
    np.savez(
        folder / f"long-{rank}.npz", **arrays_of(cnnkit.fit(MODEL, long_data(), backend=backend, **LONG_SETTINGS).state)
    )
    np.savez(folder / f"gradients-{rank}.npz", **gradients_of(backend, "float32"), **gradients_of(doubles, "float64"))
    np.savez(folder / f"threads-{rank}.npz", **side_by_side(backend, rank))

    told = {"leads": backend.leads}
    if rank == 1:  # alone: nobody else would answer
        parameters = cnnkit.initial_parameters(MODEL, 0)
        told["alone"] = cnnkit.evaluate(MODEL, parameters, data, backend).loss

    def beginning(seed, optimizer=SETTINGS["optimizer"], steps=0):
        state = cnnkit.initial_state(MODEL, optimizer, seed)
        state = cnnkit.TrainingState(state.parameters, state.slots, steps, seed)
        return backend.compile_training(MODEL.plan(), state, optimizer)

    told["seed"] = said_by(lambda: beginning(seed=rank))
    told["step"] = said_by(lambda: beginning(seed=1, steps=7 * rank))
    told["optimizer"] = said_by(lambda: beginning(1, SGD(0.1 + rank)))
    program = beginning(seed=1)
    told["images"] = said_by(lambda: program.step(data.images[rank : 8 + rank], data.labels[:8]))
    told["labels"] = said_by(lambda: program.step(data.images[:8], np.roll(data.labels[:8], rank)))
    told["same"] = said_by(lambda: program.step(data.images[:8], data.labels[:8]))
    told["steps"] = program.state().step
    program.standing = moved(program, rank)
    told["parameters"] = said_by(lambda: program.step(data.images[:8], data.labels[:8]))
    (folder / f"told-{rank}.json").write_text(json.dumps(told))

    if rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        signal.pause()  # the test ends it with SIGTERM
    begin = time.monotonic()
    frozen = said_by(lambda: beginning(seed=1))
    again = said_by(lambda: beginning(seed=1))
    (folder / "frozen.json").write_text(json.dumps([frozen, time.monotonic() - begin, again]))


def moved(program, rank):
    """Where `program` stands, at the step of the next look at parameters, with one of them other on worker 1."""
    from dataclasses import replace

    import tensorflow as tf

    vector = program.standing.vector.numpy()
    vector[0] += rank
    return replace(program.standing, vector=tf.constant(vector), step=32)


def first_dies(folder, rank, backend):
    """Each worker has a folder of its own. The first is killed in the second epoch."""

    def die(event):
        if rank == 0 and isinstance(event, Progress) and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def go():
        cnnkit.fit(MODEL, long_data(), backend=backend, out=folder / f"own-{rank}", callbacks=[die], **LONG_SETTINGS)

    (folder / "first-dies.txt").write_text(said_by(go))


def goes_on(folder, rank, backend):
    """Resume from a folder that one worker lacks, then each from its own."""

    def go(out):
        return cnnkit.fit(MODEL, long_data(), backend=backend, out=out, resume=True, **LONG_SETTINGS)

    told = said_by(lambda: go(folder / f"own-{rank}" if rank == 0 else folder / "other"))
    (folder / f"lacks-{rank}.txt").write_text(told)
    np.savez(folder / f"resumed-{rank}.npz", **arrays_of(go(folder / f"own-{rank}").state))

    backend.team.timeout = 3
    optimizer = SGD(0.1)
    program = backend.compile_training(MODEL.plan(), cnnkit.initial_state(MODEL, optimizer, 0), optimizer)
    data, done = long_data(), folder / "stalled.json"
    if rank == 0:
        first = said_by(lambda: program.step(data.images[:8], data.labels[:8]))
        begin = time.monotonic()
        again = said_by(lambda: program.step(data.images[:8], data.labels[:8]))
        (folder / "stalled.part").write_text(json.dumps([first, again, time.monotonic() - begin]))
        (folder / "stalled.part").rename(done)
    while not done.exists():
        time.sleep(0.1)


def main():
    scene, folder = sys.argv[1], Path(sys.argv[2])
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    own_folders = scene in ("first_dies", "goes_on")
    backend = cnnkit.get_backend("tensorflow", strategy="multi-worker", timeout=40, own_folders=own_folders)
    {"together": together, "first_dies": first_dies, "goes_on": goes_on}[scene](folder, rank, backend)


if __name__ == "__main__":
    main()
