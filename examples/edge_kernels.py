"""Kernels that people designed, and kernels that a network learned, as one and the same layer.

    python examples/edge_kernels.py --out edges

Sobel, Laplacian and blur are set as the kernels of a `Conv2D` and applied with `cnnkit.predict`; any backend will do. Then
a network learns kernels of its own on the same images. Two facts about convolutions are checked on the way.
"""

import argparse
from pathlib import Path

import numpy as np

import cnnkit
from cnnkit import Conv2D, Dense, Flatten, MaxPool2D, Model, Rescale, Softmax

KERNELS = {
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "Sobel, left to right": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "Sobel, top to bottom": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "Laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "blur": [[1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9], [1 / 9, 1 / 9, 1 / 9]],
}
"""As they are laid on the image, since a convolution layer does not flip its kernels: Sobel (Sobel and Feldman, 1968) is
positive where the image gets lighter to the right, or to the bottom."""


def main(arguments: list[str] | None = None) -> None:
    """Apply the designed kernels, check the two facts, learn kernels, and show both kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, default=10_000, help="so many images for training, and for the test")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--backend", default="numpy-batched")
    parser.add_argument("--out", type=Path, help="a folder for the picture; needs cnnkit[plot]")
    asked = parser.parse_args(arguments)

    train, test = cnnkit.load_dataset(asked.dataset, asked.data_dir, limit=asked.limit)
    grey = (test.images[:1].mean(axis=-1, keepdims=True) / 255).astype(np.float32)  # (1, height, width, 1), 0 to 1
    designed = np.stack([np.array(kernel, np.float32) for kernel in KERNELS.values()], axis=-1)  # (3, 3, 5)
    maps = convolved(grey, designed[:, :, np.newaxis], asked.backend)  # (1, height, width, 5)
    print("| kernel | sum of its weights | lowest value in the map | highest value |")
    print("| --- | --- | --- | --- |")
    for place, name in enumerate(KERNELS):
        found = maps[0, :, :, place]
        print(f"| {name} | {designed[:, :, place].sum():.3g} | {found.min():.3f} | {found.max():.3f} |")
    print(
        f"\nThe identity gives the image back, within {np.abs(maps[..., :1] - grey).max():.1e}. A convolution of three"
    )
    print(f"channels is the sum of three convolutions of one channel, within {three_channels(asked.backend):.1e}.")

    model = Model(
        input_shape=train.image_shape,
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=8, kernel_size=3, activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dense(units=train.classes),
            Softmax(),
        ],
    )
    run = cnnkit.fit(model, train, None, asked.backend, epochs=asked.epochs, train_metrics=False)
    accuracy = cnnkit.evaluate(model, run.state.parameters, test, asked.backend).accuracy
    print(
        f"\nA network with 8 learned kernels has test accuracy {accuracy:.4f}. The cosine between one of its kernels and"
    )
    print("the designed one that it is most like, in either sign, before and after training:\n")
    before, after = (
        parameters["1.kernel"].mean(axis=2)  # (3, 3, 8), over the channels
        for parameters in (cnnkit.initial_parameters(model), run.state.parameters)
    )
    print("| learned kernel | most like | cosine | before training |")
    print("| --- | --- | --- | --- |")
    for number in range(8):
        name, cosine = most_like(after[:, :, number])
        was, cosine_before = most_like(before[:, :, number])
        print(f"| {number} | {name} | {cosine:+.2f} | {was} {cosine_before:+.2f} |")
    if asked.out is not None:
        learned_maps = cnnkit.predict(model.prefix(1), run.state.parameters, test.images[:1], asked.backend)
        draw(grey[0, :, :, 0], (designed, maps[0]), (after, learned_maps[0]), asked.out)


def convolved(images: np.ndarray, kernel: np.ndarray, backend: str) -> np.ndarray:
    """`images` `(n, height, width, channels)` under `kernel` `(3, 3, channels, filters)`, as a layer of a network."""
    layer = Conv2D(filters=kernel.shape[3], kernel_size=3, padding="same", use_bias=False)
    return cnnkit.predict(Model(input_shape=images.shape[1:], layers=[layer]), {"0.kernel": kernel}, images, backend)


def three_channels(backend: str) -> float:
    """How far a convolution of a colour image is from the sum of one convolution for each colour."""
    rng = np.random.default_rng(0)
    colours, kernel = rng.random((1, 16, 16, 3), np.float32), rng.random((3, 3, 3, 4), np.float32)
    one_by_one = [
        convolved(colours[..., channel : channel + 1], kernel[:, :, channel : channel + 1], backend)
        for channel in range(3)
    ]
    return float(np.abs(convolved(colours, kernel, backend) - sum(one_by_one)).max())


def most_like(kernel: np.ndarray) -> tuple[str, float]:
    """The designed kernel at the smallest angle to `kernel` `(3, 3)` or to its negative, and the cosine of that angle."""
    cosines = {
        name: float(np.vdot(kernel, other) / (np.linalg.norm(kernel) * np.linalg.norm(other)))
        for name, other in KERNELS.items()
    }
    return max(cosines.items(), key=lambda item: abs(item[1]))


def draw(
    image: np.ndarray, designed: tuple[np.ndarray, np.ndarray], learned: tuple[np.ndarray, np.ndarray], out: Path
) -> None:
    """Two rows each, kernels above what they make of the image; grey is 0, in each small picture on its own scale."""
    from cnnkit.plot.picture import SIGNED, Picture, picture

    @picture
    def rows() -> Picture:
        made = Picture(9, 5)
        panels = made.subplots(4, 8)
        for panel in panels.flat:
            panel.set(xticks=[], yticks=[])
            panel.spines[:].set_visible(True)  # or a white kernel would have no edge
            panel.set_visible(False)
        panels[0, 5].imshow(image, cmap="gray")
        panels[0, 5].set(visible=True)
        panels[0, 5].set_title("the image", size=7)
        for first, (kernels, maps), names in ((0, designed, list(KERNELS)), (2, learned, None)):
            for column in range(kernels.shape[2]):
                title = names[column].replace(", ", ",\n") if names else f"learned {column}"
                panels[first, column].set_title(title, size=7)
                for panel, shown in zip(panels[first : first + 2, column], (kernels, maps), strict=True):
                    panel.set_visible(True)
                    most = np.abs(shown[:, :, column]).max() or 1.0
                    panel.imshow(shown[:, :, column], cmap=SIGNED, vmin=-most, vmax=most)
        made.alt = (
            f"Above, the kernels {', '.join(KERNELS)} and what they make of an image; below, the {kernels.shape[2]} kernels "
            "that a network learned and their feature maps. Grey is 0, dark is negative, light is positive."
        )
        return made

    out.mkdir(parents=True, exist_ok=True)
    print(f"\nThe picture is in {rows().save(out / 'edge_kernels.png')}.")


if __name__ == "__main__":
    main()
