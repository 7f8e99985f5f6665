"""Comparison of super-resolved images with the simulated image without noise and with half the spot width."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import resize

from calib.offline.evaluation.callers import folder_of
from calib.offline.simulation.simulatedrun import simulated_tile_of
from calib.offline.simulation.simulatedtile import superresolved
from calib.runfolder.images import RunFolderError, image_path, read_image


@dataclass(frozen=True)
class Fidelity:
    """How near one image comes to the truth."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class SuperResolved:
    """Means over the super-resolved images of a run, and of bicubic upsampling of the same frames."""

    images: int
    fidelity: Fidelity
    bicubic: Fidelity


def fidelity(truth: NDArray[np.floating], image: NDArray[np.floating]) -> Fidelity:
    """PSNR and SSIM of an image after the affine fit ``a·image + b`` to the truth (least squares).

    The fit makes images in counts comparable with images in units of the network, and subtracts a background.

    Parameters
    ----------
    truth, image : (H, W) of any unit; PSNR and SSIM take the range of the truth as the largest possible value.

    Returns
    -------
    PSNR in dB, infinite where they agree; SSIM with the 7 × 7 window of Wang et al. 2004 as scikit-image has it.
    """
    flat = image.astype(np.float64).ravel()
    columns = np.stack([flat - flat.mean(), np.ones_like(flat)], axis=1)
    coefficients = np.linalg.lstsq(columns, truth.astype(np.float64).ravel())[0]
    fitted = (columns @ coefficients).reshape(truth.shape)
    truth = truth.astype(np.float64)
    extent = float(np.ptp(truth))
    with np.errstate(divide="ignore"):
        psnr = float(peak_signal_noise_ratio(truth, fitted, data_range=extent))
    return Fidelity(psnr, float(structural_similarity(truth, fitted, data_range=extent)))


def bicubic(frame: NDArray[np.uint16]) -> NDArray[np.float64]:
    """(2H, 2W) of a (H, W) frame by cubic splines; pixel edges stay where they are."""
    shape = tuple(2 * edge for edge in frame.shape)
    return np.asarray(resize(frame.astype(np.float64), shape, order=3, mode="edge", anti_aliasing=False))


def measure(root: Path, info: RunInfo, *, folder: str) -> SuperResolved:
    """Compare the super-resolved images that are there, ``L001/C<cycle>.1/s_<lane>_<tile>_<A|C|G|T>.tif``.

    ``RUN_FIELD`` in the folder's name is replaced by the run's name.
    Frames without any light have no peak to compare with, and are left out.

    Raises
    ------
    RunFolderError : the folder has none of them, or one is not twice as large as the frames.
    """
    pairs: list[tuple[Fidelity, Fidelity]] = []
    for tile in info.tiles:
        pairs.extend(_tile(root, info, tile, folder_of(folder, info)))
    if not pairs:
        raise RunFolderError(f"folder {folder_of(folder, info)}: no super-resolved image of run {info.run}")
    return SuperResolved(len(pairs), _mean(first for first, _ in pairs), _mean(second for _, second in pairs))


def _tile(root: Path, info: RunInfo, tile: TileId, folder: Path) -> Iterable[tuple[Fidelity, Fidelity]]:
    simulated = simulated_tile_of(root, tile)
    for cycle in range(1, info.cycles + 1):
        frames = {channel: image_path(root, tile, cycle, channel) for channel in CHANNELS}
        finer = {channel: folder / frames[channel].relative_to(root / "Images") for channel in CHANNELS}
        if not any(path.exists() for path in finer.values()):
            continue
        truth = superresolved(simulated, cycle, gain=np.ones(4))
        for index, channel in enumerate(CHANNELS):
            if finer[channel].exists() and np.ptp(truth[index]) > 0:
                image = _read(finer[channel], (2 * info.height, 2 * info.width))
                frame = bicubic(read_image(frames[channel]))
                yield fidelity(truth[index], image), fidelity(truth[index], frame)


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.floating]:
    try:
        image = tifffile.imread(path)
    except Exception as error:  # a damaged file makes the reader raise anything
        raise RunFolderError(f"image {path}: not a readable TIFF: {error}") from error
    if image.shape != shape:
        raise RunFolderError(f"image {path}: its shape is {image.shape}, but twice the frame is {shape}")
    return np.asarray(image, np.float64)


def _mean(figures: Iterable[Fidelity]) -> Fidelity:
    pairs = np.array([(one.psnr_db, one.ssim) for one in figures])
    return Fidelity(float(pairs[:, 0].mean()), float(pairs[:, 1].mean()))
