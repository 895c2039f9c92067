"""Programs of the cupy backend give what those of numpy do, on a stand-in for CuPy: no GPU code runs here."""

import gc
import math
import os
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from cupy_by_numpy import EVERYWHERE, CUDADriverError, CUDARuntimeError
from networks import CLASSIFIERS, batch, predictor, random_parameters, trainer

import cnnkit_cupy.program
from cnnkit import (
    SGD,
    Adam,
    AdamW,
    BackendError,
    Conv2D,
    CosineDecay,
    DataError,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    OutOfMemory,
    Softmax,
    StepDecay,
    fresh_state,
)
from cnnkit.conformance.measure import THRESHOLD
from cnnkit.optimizers import Optimizer
from cnnkit_cupy.cudnn import Convolution
from cnnkit_cupy.recipe import GraphsRefused

OPTIMIZERS = {
    "sgd": SGD(learning_rate=0.1),
    "momentum": SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
    "adam": Adam(learning_rate=0.01),
    "adamw": AdamW(learning_rate=0.01, weight_decay=0.1),
    "clipped": Adam(learning_rate=0.01, clip_global_norm=0.05),
    "decaying": SGD(learning_rate=StepDecay(0.1, every=2)),
    "cosine": AdamW(learning_rate=CosineDecay(0.1, steps=6)),
}
SMALL = Model(
    input_shape=(9, 8, 2),
    layers=[
        Conv2D(filters=4, kernel_size=3, activation="relu"),
        MaxPool2D(pool_size=2),
        Dropout(rate=0.3),
        Flatten(),
        Dense(units=5),
        Softmax(),
    ],
)
ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


def close(made, expected, precision="float64"):
    """Whether arrays differ by no more than rounding does in so small a model."""
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    return bool((np.abs(made - expected) <= THRESHOLD * 20 * ROUNDOFF[precision] * scale).all())


def same(made, expected, precision="float64"):
    """Whether two states are the same but for rounding."""
    assert (made.step, made.seed, made.slots.keys()) == (expected.step, expected.seed, expected.slots.keys())
    pairs = [(made.parameters, expected.parameters)]
    pairs += [(made.slots[name], expected.slots[name]) for name in made.slots]
    return all(close(ours[name], theirs[name], precision) for ours, theirs in pairs for name in theirs)


def start(backend, model, optimizer=None, precision="float64", seed=3):
    """A training program on `backend`, and one of numpy that starts from the same state."""
    optimizer = optimizer or SGD(learning_rate=0.1)
    state = fresh_state(random_parameters(model.plan(), seed, np.dtype(precision)), optimizer, seed)
    return backend.compile_training(model.plan(), state, optimizer), trainer(
        model, optimizer, precision=precision, seed=seed
    )


# -------------------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_gradients_predictions_and_steps_are_those_of_numpy(stand_in, name):
    backend, _ = stand_in()
    model = CLASSIFIERS[name]
    images, labels = batch(model, 6)
    program, numpy = start(backend, model)
    (loss, gradient), (numpy_loss, numpy_gradient) = (one.gradients(images, labels) for one in (program, numpy))
    assert close(loss, numpy_loss)
    assert gradient.keys() == numpy_gradient.keys()
    assert all(close(gradient[key], numpy_gradient[key]) for key in gradient)
    for _ in range(4):
        assert close(float(program.step(images, labels)), float(numpy.step(images, labels)))
    assert same(program.state(), numpy.state())
    assert close(program.predict(images), numpy.predict(images))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("precision", ROUNDOFF)
def test_every_optimizer_goes_the_way_of_numpy(stand_in, optimizer, precision):
    backend, _ = stand_in(precision)
    program, numpy = start(backend, SMALL, optimizer, precision)
    images, labels = batch(SMALL, 23, dtype=precision)
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(23)
        totals, expected = (one.epoch(images, labels, order, 6) for one in (program, numpy))
        assert totals.count == expected.count == 23
        assert math.isclose(totals.loss_sum, expected.loss_sum, rel_tol=1e4 * ROUNDOFF[precision])
    assert same(program.state(), numpy.state(), precision)


def test_whoever_takes_a_state_over_goes_on_with_it(stand_in):
    backend, _ = stand_in()
    optimizer = Adam(learning_rate=0.01)
    program, numpy = start(backend, SMALL, optimizer)
    images, labels = batch(SMALL, 8)
    for one in (program, numpy):
        one.step(images, labels)
    again = backend.compile_training(SMALL.plan(), program.state(), optimizer)
    for one in (again, numpy):
        one.step(images, labels)
    assert again.state().step == 2
    assert same(again.state(), numpy.state())


@pytest.mark.parametrize("kind", ["uint8", "float32", "strided", "read-only", "big-endian"])
def test_images_of_every_kind_that_the_contract_allows(stand_in, kind):
    backend, _ = stand_in()
    model = CLASSIFIERS["preprocessing"]
    images = np.random.default_rng(0).integers(0, 256, (7, *model.input_shape), np.uint8)
    images = {
        "uint8": images,
        "float32": images.astype(np.float32),
        "strided": np.repeat(images.astype(np.float64), 2, axis=2)[:, :, ::2],
        "read-only": images.astype(np.float64),
        "big-endian": images.astype(">f8"),
    }[kind]
    images.flags.writeable = False
    parameters = random_parameters(model.plan())
    made = backend.compile(model.plan(), parameters).predict(images)
    assert close(made, predictor(model, parameters).predict(images))


def test_predictions_of_more_images_than_a_slice_and_of_none(stand_in):
    backend, _ = stand_in()
    model = CLASSIFIERS["dense only"]
    parameters = random_parameters(model.plan())
    program, images = backend.compile(model.plan(), parameters), batch(model, 2500)[0]
    assert close(program.predict(images), predictor(model, parameters).predict(images))
    assert program.predict(images[:0]).shape == (0, 2)


@dataclass(frozen=True)
class Signs(Optimizer):
    """Somebody else's: each parameter goes a fixed way against the sign of its gradient, and counts it."""

    learning_rate: float = 0.01
    clip_global_norm: float | None = 0.1

    @property
    def slot_names(self):
        return ("sum",)

    def coefficients(self, step):
        return (self.learning_rate / (step + 1),)

    def apply(self, p, g, slots, coefficients):
        size = (g * g + 1e-6) ** 0.5
        return p - coefficients[0] * g / size, (slots[0] + g,)


def test_an_optimizer_of_somebody_elses_works_too(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL, Signs())
    images, labels = batch(SMALL, 9)
    for _ in range(4):
        program.step(images, labels)
        numpy.step(images, labels)
    assert same(program.state(), numpy.state())
    assert len(gpu.graphs) == 1  # what comes before its arithmetic is recorded all the same


# --------------------------------------------------------------------------------------------------- nobody waits


def test_a_step_waits_for_nothing_and_its_loss_only_when_it_is_wanted(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL, OPTIMIZERS["cosine"])
    images, labels = batch(SMALL, 10)
    losses = [program.step(images, labels) for _ in range(5)]
    assert gpu.waits == []
    assert all(close(float(loss), float(numpy.step(images, labels))) for loss in losses)
    assert gpu.waits == ["get"] * 5


@pytest.mark.parametrize("graphs", [True, False])
def test_an_epoch_waits_once_and_uploads_its_data_once(stand_in, graphs):
    backend, gpu = stand_in("float32", graphs=graphs)
    program, _ = start(backend, SMALL, Adam(), "float32")
    images, labels = batch(SMALL, 50, dtype=np.float32)
    gpu.uploads.clear()
    for _ in range(3):
        program.epoch(images, labels, np.random.default_rng(0).permutation(50), 8)
    assert gpu.waits == ["synchronize"] + ["get"] * 3  # the images, before all steps; and the sums of the losses
    assert gpu.uploads.count(images.nbytes) == 1
    masks = [8 * 3 * 3 * 4, 2 * 3 * 3 * 4]
    assert [size for size in gpu.uploads if size not in masks] == [images.nbytes, 50 * 4, 50 * 8, 8, 8, 50 * 8, 50 * 8]


def test_other_arrays_are_uploaded_anew(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL)
    order = np.arange(12)
    for seed in (1, 2):
        images, labels = batch(SMALL, 12, seed)
        for one in (program, numpy):
            one.epoch(images, labels, order, 5)
        assert gpu.uploads.count(images.nbytes) == seed
    assert same(program.state(), numpy.state())


# --------------------------------------------------------------------------------------------------------- graphs


def test_the_second_step_of_a_size_is_recorded_and_then_replayed(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL, OPTIMIZERS["cosine"])
    images, labels = batch(SMALL, 10)
    launched = []
    for _ in range(5):
        gpu.launches.clear()
        program.step(images, labels)
        numpy.step(images, labels)
        launched.append(len(gpu.launches))
    assert launched[0] == launched[1] > 10
    assert launched[2:] == [0, 0, 0]
    assert [graph.launched for graph in gpu.graphs] == [4]
    assert same(program.state(), numpy.state())


def test_each_size_of_a_batch_has_its_graph(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 20)
    for _ in range(3):
        for one in (program, numpy):
            one.epoch(images, labels, np.arange(20), 8)
    assert sorted(graph.launched for graph in gpu.graphs) == [2, 5]  # the last batch has 4 images
    assert same(program.state(), numpy.state())


def test_graphs_change_no_bit(stand_in):
    ends = []
    for graphs in (True, False):
        backend, gpu = stand_in("float32", graphs=graphs)
        program, _ = start(backend, SMALL, Adam(), "float32")
        images, labels = batch(SMALL, 30, dtype=np.float32)
        for _ in range(2):
            program.epoch(images, labels, np.arange(30), 7)
        ends.append({name: array.tobytes() for name, array in program.state().parameters.items()})
        assert bool(gpu.graphs) is graphs
    assert ends[0] == ends[1]


@pytest.mark.parametrize("refusal", ["begin", "softmax_cross_entropy", "end"])
def test_where_no_graph_can_be_recorded_that_is_said_once_and_steps_are_right(stand_in, refusal):
    backend, gpu = stand_in()
    gpu.refuses_graphs = refusal
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 10)
    program.step(images, labels)
    with pytest.warns(GraphsRefused, match="steps run call by call, .*: cudaErrorStreamCapture"):
        program.step(images, labels)
    program.step(images, labels)
    for _ in range(3):
        numpy.step(images, labels)
    assert same(program.state(), numpy.state())
    assert len(program.remarks) == 1
    assert gpu.recording is None


def test_ctrl_c_in_the_middle_of_a_step_leaves_the_state_before_it(stand_in):
    backend, gpu = stand_in(graphs=False)
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 10)
    for number, kernel in enumerate(("softmax_cross_entropy", "update_adam")):
        gpu.interrupts = kernel
        with pytest.raises(KeyboardInterrupt):
            program.step(images, labels)
        gpu.interrupts = None
        program.step(images, labels)
        numpy.step(images, labels)
        assert program.state().step == number + 1
    assert same(program.state(), numpy.state())


def test_ctrl_c_while_a_graph_is_recorded_leaves_the_stream_working(stand_in):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 10)
    program.step(images, labels)
    gpu.interrupts = "update_adam"
    with pytest.raises(KeyboardInterrupt):
        program.step(images, labels)
    gpu.interrupts = None
    program.step(images, labels)
    for _ in range(2):
        numpy.step(images, labels)
    assert same(program.state(), numpy.state())


# --------------------------------------------------------------------------------------------------------- memory

LIMIT = 1_000_000


def test_a_batch_that_does_not_fit_is_cut_into_slices_whose_gradients_are_summed(stand_in):
    ends = []
    for _ in range(2):
        backend, gpu = stand_in(limit=LIMIT)
        program, numpy = start(backend, SMALL, Adam())
        images, labels = batch(SMALL, 150)
        gpu.launches.clear()
        for _ in range(3):
            assert close(float(program.step(images, labels)), float(numpy.step(images, labels)))
        assert gpu.launches.count("softmax_cross_entropy") == 2 * 4  # four slices; the third step is replayed
        assert gpu.launches.count("update_adam") == 2
        assert same(program.state(), numpy.state())
        assert close(program.gradients(images, labels)[1]["0.kernel"], numpy.gradients(images, labels)[1]["0.kernel"])
        ends.append(program.state().parameters["0.kernel"].tobytes())
    assert ends[0] == ends[1]


@pytest.mark.parametrize("block", [1, 60, 200])
@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name.startswith(("conv", "deep"))])
def test_patches_are_worked_through_in_blocks_of_images_and_of_rows(stand_in, name, block):
    backend, gpu = stand_in()
    backend.card.block = block
    model = CLASSIFIERS[name]
    program, numpy = start(backend, model)
    images, labels = batch(model, 6)
    (loss, gradient), (numpy_loss, numpy_gradient) = (one.gradients(images, labels) for one in (program, numpy))
    assert close(loss, numpy_loss)
    assert all(close(gradient[key], numpy_gradient[key]) for key in gradient)
    assert close(program.predict(images), numpy.predict(images))
    assert gpu.launches.count("im2col") > 6  # one block would be at most six


def test_no_more_memory_is_taken_than_the_limit_allows(stand_in):
    backend, gpu = stand_in(limit=LIMIT)
    program, _ = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 150)
    most = 0
    for _ in range(3):
        program.step(images, labels)
        program.predict(images)
        most = max(most, gpu.taken)
    assert LIMIT / 2 < most <= LIMIT


def test_a_batch_that_is_too_large_is_an_error_that_names_one_that_fits(stand_in):
    backend, _ = stand_in(limit=LIMIT)
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 2000)
    program.step(images[:5], labels[:5])
    before = program.state()
    words = r"a batch of 2000 images does not fit: .* under the memory_limit of 1\.00 MB.*largest batch that fits is (\d+)\."
    with pytest.raises(OutOfMemory, match=words) as caught:
        program.step(images, labels)
    error = caught.value
    assert error.asked > error.free >= 0
    assert isinstance(error.__cause__.__cause__, MemoryError)  # CuPy's own
    assert same(program.state(), before)
    assert 50 < error.batch < 2000
    numpy.step(images[:5], labels[:5])
    for one in (program, numpy):
        one.step(images[: error.batch], labels[: error.batch])
    assert same(program.state(), numpy.state())
    with pytest.raises(OutOfMemory):
        program.step(images[: error.batch * 5 // 4], labels[: error.batch * 5 // 4])


def test_what_is_free_on_the_gpu_is_the_limit_where_there_is_no_other(stand_in):
    backend, _ = stand_in(memory=LIMIT)
    program, numpy = start(backend, SMALL)
    images, labels = batch(SMALL, 2000)
    with pytest.raises(OutOfMemory, match=r"a batch of 2000 images does not fit: .* on GPU 0") as caught:
        program.gradients(images, labels)
    few = slice(caught.value.batch)
    assert close(program.gradients(images[few], labels[few])[0], numpy.gradients(images[few], labels[few])[0])


def test_a_model_that_is_too_large_is_an_error_without_a_batch(stand_in):
    backend, _ = stand_in(limit=200_000)
    model = Model(input_shape=(300,), layers=[Dense(units=100), Dense(units=2), Softmax()])
    with pytest.raises(OutOfMemory, match="asked for 243 kB of memory on GPU 0") as caught:
        start(backend, model, Adam())
    assert caught.value.batch is None
    assert caught.value.asked == pytest.approx(8 * (301 * 100 + 101 * 2), abs=8 * 32)


def test_where_the_data_of_an_epoch_do_not_fit_batches_go_one_by_one(stand_in):
    backend, gpu = stand_in(limit=LIMIT)
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 1000)  # 1,152,000 bytes
    order = np.random.default_rng(0).permutation(1000)
    totals, expected = (one.epoch(images, labels, order, 20) for one in (program, numpy))
    assert math.isclose(totals.loss_sum, expected.loss_sum, rel_tol=1e-12)
    assert same(program.state(), numpy.state())
    assert "batch by batch" in program.remarks[0]
    assert max(gpu.uploads) == 20 * 9 * 8 * 2 * 8


def test_old_data_make_room_for_new_ones(stand_in):
    backend, _ = stand_in(limit=LIMIT)
    program, numpy = start(backend, SMALL, Adam())
    for seed in (1, 2, 3):
        images, labels = batch(SMALL, 400, seed)  # 460,800 bytes
        for one in (program, numpy):
            one.epoch(images, labels, np.arange(400), 10)
    assert same(program.state(), numpy.state())
    assert program.remarks == ()


def test_what_one_program_does_not_use_another_gets(stand_in):
    backend, _ = stand_in(limit=LIMIT)
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 150)
    program.step(images, labels)
    program._release()
    program.trainer.room.empty((70_000,))  # given back to the pool at once, which keeps it
    assert program.trainer.room.pool.free_bytes() > LIMIT / 2
    other, _ = start(backend, SMALL, Adam())
    for one in (other, numpy):
        one.step(images, labels)
    assert same(other.state(), numpy.state())


def test_memory_is_given_back_when_a_program_dies(stand_in):
    backend, gpu = stand_in()
    before = gpu.taken
    gc.disable()
    try:
        program, _ = start(backend, SMALL, Adam())
        images, labels = batch(SMALL, 40)
        program.epoch(images, labels, np.arange(40), 20)
        program.predict(images)
        predicting = backend.compile(SMALL.plan(), program.state().parameters)
        predicting.predict(images)
        assert gpu.taken > before + 40 * images[0].nbytes
        del program, predicting
        assert gpu.taken == before
    finally:
        gc.enable()


def test_a_block_that_is_too_small_is_given_back_before_a_larger_one_is_taken(stand_in):
    backend, _ = stand_in()
    program, _ = start(backend, SMALL)
    program.step(*batch(SMALL, 20))
    small = program.trainer.networks.capacity
    program.step(*batch(SMALL, 80))
    assert program.trainer.networks.capacity > 3 * small
    assert program.trainer.room.pool.free_bytes() < small


def test_a_block_is_given_back_even_where_somebody_holds_its_networks(stand_in):
    """As the traceback of an error does."""
    backend, gpu = stand_in()
    program, _ = start(backend, SMALL)
    program.step(*batch(SMALL, 40))
    networks = program.trainer.networks
    before, block = gpu.taken, networks.capacity
    del program
    assert gpu.taken < before - block
    assert networks.memory is None


@pytest.mark.parametrize("by", ["epochs", "steps"])
def test_data_that_come_no_more_are_let_go(stand_in, by):
    backend, gpu = stand_in()
    program, _ = start(backend, SMALL, Adam())
    taken = []
    for seed in range(4):
        images, labels = batch(SMALL, 300 - seed, seed)
        if by == "epochs":
            program.epoch(images, labels, np.arange(200), 50)
        else:
            program.step(images, labels)
        program.trainer.room.give_back()
        taken.append(gpu.taken)
    assert taken[-1] < taken[0] + images.nbytes / 2


def test_a_loss_outlives_its_program(stand_in):
    backend, _ = stand_in()
    program, numpy = start(backend, SMALL)
    images, labels = batch(SMALL, 4)
    loss = program.step(images, labels)
    del program
    assert close(float(loss), float(numpy.step(images, labels)))


def test_the_estimate_is_what_a_step_takes(stand_in):
    backend, gpu = stand_in("float32")
    optimizer = Adam()
    before = gpu.taken
    program, _ = start(backend, SMALL, optimizer, "float32")
    images, labels = batch(SMALL, 4000, dtype=np.float32)
    estimate = backend.estimate_memory(SMALL.plan(), optimizer, 4000)
    program.step(images, labels)
    program.trainer.room.give_back()
    of_batch = 9 * 8 * 2 * 4 + 4 + 2 * 8 + 3 * 3 * 4  # image, label, both orders and mask
    beside = gpu.taken - before - 4000 * of_batch
    assert estimate.bytes == pytest.approx(beside, rel=0.02)
    assert "4000 images at a time" in str(estimate)


def test_an_estimate_says_what_does_not_fit(stand_in):
    backend, _ = stand_in(limit=LIMIT)
    estimate = backend.estimate_memory(SMALL.plan(), Adam(), 10**6)
    assert LIMIT * 0.9 < estimate.bytes <= LIMIT
    model = Model(input_shape=(300,), layers=[Dense(units=1000), Dense(units=2), Softmax()])
    with pytest.raises(OutOfMemory, match=r"takes 12.1 MB to train one image at a time"):
        backend.estimate_memory(model.plan(), Adam(), 1)


# ---------------------------------------------------------------------------------------------------------- cuDNN


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name.startswith(("conv", "deep"))])
def test_convolutions_on_cudnn_give_the_same_numbers(stand_in, name):
    backend, gpu = stand_in(cudnn=EVERYWHERE)
    model = CLASSIFIERS[name]
    program, numpy = start(backend, model, Adam())
    images, labels = batch(model, 6)
    for _ in range(3):
        assert close(float(program.step(images, labels)), float(numpy.step(images, labels)))
    assert same(program.state(), numpy.state())
    assert close(program.predict(images), numpy.predict(images))
    assert gpu.graphs
    assert bool(program.remarks) is ("im2col" in gpu.launches)
    assert "cudnnConvolutionBackwardFilter" in gpu.cudnn.calls


def test_a_convolution_that_cudnn_does_not_do_runs_without_it_and_that_is_said(stand_in):
    backend, gpu = stand_in(cudnn=EVERYWHERE)
    program, _ = start(backend, CLASSIFIERS["conv padding"])
    program.step(*batch(CLASSIFIERS["conv padding"], 4))
    (remark,) = program.remarks
    assert remark.startswith("layers[1] runs without cuDNN: its padding along the height is 2 before and 0 after")
    assert "im2col" in gpu.launches


def test_a_cudnn_that_fails_before_it_is_used_is_done_without_and_that_is_said(stand_in):
    backend, gpu = stand_in(cudnn=EVERYWHERE)
    gpu.cudnn.cudnnGetConvolutionForwardAlgorithm_v7.body = lambda *_: 2000
    program, numpy = start(backend, SMALL)
    images, labels = batch(SMALL, 4)
    assert close(float(program.step(images, labels)), float(numpy.step(images, labels)))
    (remark,) = program.remarks
    assert remark.startswith(
        "layers[0] runs without cuDNN: cudnnGetConvolutionForwardAlgorithm_v7 of cuDNN 9.28.1 failed"
    )
    assert "im2col" in gpu.launches


def test_cudnn_is_used_in_slices_too(stand_in):
    backend, gpu = stand_in(limit=LIMIT, cudnn=EVERYWHERE)
    program, numpy = start(backend, SMALL, Adam())
    images, labels = batch(SMALL, 180)
    for _ in range(3):
        program.step(images, labels)
        numpy.step(images, labels)
    assert same(program.state(), numpy.state())
    assert gpu.launches.count("softmax_cross_entropy") == 2 * 3  # three slices; the third step is replayed
    assert program.remarks == ()


def test_arrays_lie_where_libraries_expect_those_of_cuda(stand_in):
    """At multiples of 256 bytes from the beginning of a block, which CUDA has allocated."""
    backend, _ = stand_in("float32", cudnn=EVERYWHERE)
    program, _ = start(backend, SMALL, precision="float32")
    program.step(*batch(SMALL, 3, dtype=np.float32))
    networks = program.trainer.networks
    network, begin = networks.found[3, True], networks.memory.data.ptr
    arrays = [network.images, network.output, network.head.labels, network.head.losses]
    assert [(array.data.ptr - begin) % 256 for array in arrays] == [0] * 4
    assert networks.capacity % 256 == 0


def test_fewer_images_may_take_cudnn_a_larger_workspace(stand_in, monkeypatch):
    backend, _ = stand_in(cudnn=EVERYWHERE)
    program, numpy = start(backend, SMALL)
    monkeypatch.setattr(cnnkit_cupy.program, "PREDICTED", 100)
    of_batch = property(lambda convolution: 1_000_000_000 // convolution.descriptors.x_shape[0])
    monkeypatch.setattr(Convolution, "workspace", of_batch)
    images, _ = batch(SMALL, 150)  # twice 75, in a block for 100
    assert close(program.predict(images), numpy.predict(images))


# ------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(("precision", "mode"), [("float32", 0), ("float64", 0), ("tf32", 3)])
def test_factors_are_rounded_only_where_that_was_asked_for(stand_in, precision, mode):
    _, gpu = stand_in(precision)
    assert list(gpu.blas.math.values()) == [mode]


@pytest.mark.parametrize("kind", [CUDARuntimeError, CUDADriverError])
def test_what_cuda_fails_with_is_an_error_of_ours(stand_in, monkeypatch, kind):
    backend, gpu = stand_in()
    program, numpy = start(backend, SMALL)
    images, labels = batch(SMALL, 4)

    def fail(_):
        raise kind("cudaErrorIllegalAddress: an illegal memory access was encountered")

    with monkeypatch.context() as patched:
        patched.setattr(gpu, "wait", fail)
        with pytest.raises(BackendError, match=r"GPU 0 failed with cudaErrorIllegalAddress: .*go on from a checkpoint"):
            program.gradients(images, labels)
    assert close(program.gradients(images, labels)[0], numpy.gradients(images, labels)[0])  # others are not locked out


def test_a_call_in_a_fork_is_an_error(stand_in, monkeypatch):
    backend, _ = stand_in()
    program, _ = start(backend, SMALL)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(BackendError, match="called in a fork of the process in which it was created"):
        program.step(*batch(SMALL, 4))


def test_labels_and_images_are_checked_before_they_are_uploaded(stand_in):
    backend, gpu = stand_in()
    program, _ = start(backend, SMALL)
    images, labels = batch(SMALL, 4)
    gpu.uploads.clear()
    with pytest.raises(DataError, match=r"labels\[1\] is 5, but the model has 5 classes"):
        program.step(images, np.array([0, 5, 1, 1]))
    with pytest.raises(DataError, match="the batch has 0 images"):
        program.step(images[:0], labels[:0])
    with pytest.raises(DataError, match="order goes from -1 to 2, but the 4 images are 0 to 3"):
        program.epoch(images, labels, np.array([-1, 2]), 2)
    assert gpu.uploads == []
    assert program.epoch(images, labels, np.array([], int), 2).count == 0


def test_threads_take_turns_on_one_gpu(stand_in):
    backend, _ = stand_in()
    programs = [start(backend, SMALL, Adam(), seed=seed) for seed in range(3)]
    images, labels = batch(SMALL, 24)
    threads = [
        threading.Thread(target=program.epoch, args=(images, labels, np.arange(24), 4)) for program, _ in programs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for program, numpy in programs:
        numpy.epoch(images, labels, np.arange(24), 4)
        assert same(program.state(), numpy.state())
