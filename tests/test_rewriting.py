from cnnkit import Conv2D, Grayscale, MaxPool2D, Model, ReLU, Sigmoid, Tanh
from cnnkit.plan import ActivationOp, GrayscaleOp, MaxPool2DOp
from cnnkit.rewriting import simplified


def test_relu_comes_after_the_pooling_that_follows_it():
    layers = [Conv2D(filters=2, kernel_size=2, activation="relu"), MaxPool2D(), ReLU(), Tanh(), MaxPool2D(), Sigmoid()]
    operations = Model(input_shape=(12, 12, 1), layers=layers).plan().operations
    pooled, activated = simplified(operations)[1:3]
    assert isinstance(pooled, MaxPool2DOp)
    assert isinstance(activated, ActivationOp)
    assert activated.input_shape == activated.output_shape == pooled.output_shape
    assert [type(op) for op in simplified(operations)[3:]] == [type(op) for op in operations[3:]]


def test_the_mean_of_one_channel_is_left_out_and_that_of_three_is_not():
    kinds = {
        channels: [
            type(op) for op in simplified(Model(input_shape=(4, 4, channels), layers=[Grayscale()]).plan().operations)
        ]
        for channels in (1, 3)
    }
    assert kinds == {1: [], 3: [GrayscaleOp]}
