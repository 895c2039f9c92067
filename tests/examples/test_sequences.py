"""examples/sequences.py: the tones are the notes, and the convolution over time hears them."""

import numpy as np
import pytest


@pytest.fixture
def script(example):
    return example("sequences")


def test_a_tone_has_its_note_and_two_overtones_as_its_frequencies(script):
    for label, frequency in enumerate(script.NOTES.values()):
        data = script.tones(3, 0.0, np.random.default_rng(0), label)
        assert data.images.shape == (3, 1, script.LENGTH, 1)
        assert data.labels.tolist() == [label] * 3
        spectrum = np.abs(np.fft.rfft(data.images[:, 0, :, 0] * np.hanning(script.LENGTH), axis=1))
        steps = script.RATE / script.LENGTH  # Hz from one frequency of the spectrum to the next
        for sound in spectrum:
            peaks = [place for place in range(1, len(sound) - 1) if sound[place - 1] < sound[place] > sound[place + 1]]
            found = sorted(sorted(peaks, key=lambda place: -sound[place])[:3])
            np.testing.assert_allclose(np.array(found) * steps, frequency * np.arange(1, 4), atol=steps)


def test_the_notes_are_those_of_equal_temperament(script):
    semitones = np.array([0, 4, 7, 11])  # of C sharp, E and G sharp above A
    np.testing.assert_allclose(list(script.NOTES.values()), 220 * 2 ** (semitones / 12), atol=0.01)


def test_noise_has_the_deviation_that_was_asked_for(script):
    quiet, loud = (script.tones(50, noise, np.random.default_rng(1)).images for noise in (0.0, 2.0))
    assert (loud - quiet).std() == pytest.approx(2, rel=0.05)


def test_the_convolution_hears_the_notes_better_than_a_dense_network_of_its_size(script, printed):
    script.main(["--limit", "400", "--epochs", "20"])
    text, [networks, recording] = printed()
    convolutional, dense = networks[1:]
    assert float(convolutional[2]) > 0.85
    assert float(convolutional[2]) > float(dense[2]) + 0.1
    sizes = [float(row[1].replace(",", "")) for row in (convolutional, dense)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.15)
    # by hand: 33 * 16 + 16, then 9 * 16 * 16 + 16, then 16 * 4 + 4
    assert sizes[0] == 544 + 2320 + 68
    assert [row[0] for row in recording[1:]] == [
        "A, heard as A", "E, heard as E", "C sharp, heard as C sharp",
    ]  # fmt: skip
    assert all(0.5 < float(row[1]) <= 1 for row in recording[1:])
    assert "three notes" in text
