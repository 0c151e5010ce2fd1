"""ShanghaiTech Campus: videos of a campus in which some frames show something unusual.

training/videos/SCENE_CLIP.avi              normal: every frame can be used for training
testing/frames/SCENE_CLIP/*.jpg             one folder per clip, 000.jpg and so on
testing/test_pixel_mask/SCENE_CLIP.npy      (frames, H, W), 0 or 1; any 1 makes the frame anomalous
testing/test_frame_mask/SCENE_CLIP.npy      (frames,), 0 or 1; compared with it, if present

The 13 scenes are one category, 'all', as is usual in the field (Liu et al., 2018,
'Future Frame Prediction for Anomaly Detection'): one model, one AUROC over all frames.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stpm_bench.datasets.interface import INSIDE, Layout, Problem, Row, ScanResult
from stpm_bench.datasets.listing import both_kinds, folders, image_files
from stpm_bench.errors import InputError

CATEGORY = "all"
VIDEOS = Path("training", "videos")
FRAMES, PIXEL_MASKS, FRAME_MASKS = (
    Path("testing", name) for name in ("frames", "test_pixel_mask", "test_frame_mask")
)


def count_frames(path: Path) -> int:
    """Return the number of frames in a video's header, minus the last frame.

    Encoders that pack two frames into one count a last one that cannot be decoded.

    Raises:
        InputError: PyAV is not installed, or the file is not a video.
    """
    av = _pyav()
    try:
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            count = video.frames or sum(packet.size > 0 for packet in container.demux(video))
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _undecodable(path, error) from error
    return max(count - 1, 0)


def decode(path: Path, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield the frames of a video at ascending indices, each (H, W, 3) uint8, RGB.

    Raises:
        InputError: as in `count_frames`; the video is damaged, or ends before the last index.
    """
    av = _pyav()
    wanted = iter(indices)
    next_wanted = next(wanted, None)
    seen = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                if next_wanted is None:
                    return
                if seen == next_wanted:
                    yield frame.to_ndarray(format="rgb24")
                    next_wanted = next(wanted, None)
                seen += 1
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _undecodable(path, error) from error
    if next_wanted is not None:
        raise _undecodable(path, f"it ends after {seen} frames, before frame {next_wanted}")


def _pyav():
    try:
        import av
    except ImportError as error:
        raise InputError(
            "PyAV, which decodes the videos of ShanghaiTech Campus, is not installed. Expected the "
            "package av; type pip install 'av>=12', or, in a conda environment, "
            "conda install -n stpm_bench -c conda-forge 'av>=12', and run without --use-conda."
        ) from error
    return av


def _undecodable(path: Path, reason: object) -> InputError:
    return InputError(
        f"{path}: cannot be decoded ({reason}). Expected a complete video; copy it again."
    )


def read_masks(path: Path, frames: int | None = None) -> np.ndarray:
    """Return the masks of a clip, (frames, H, W), without reading them into memory yet.

    Raises:
        InputError: the file cannot be read, or has a wrong shape or number of frames.
    """
    try:
        masks = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path}: cannot be read ({reason}). Expected the clip's masks, (frames, H, W); copy "
            "the file again."
        ) from error
    if masks.ndim != 3 or frames not in (None, len(masks)):
        raise InputError(
            f"{path}: has the shape {masks.shape}. Expected {frames or 'as many'} masks, "
            f"({frames or 'frames'}, H, W), one for each frame of the clip; copy masks and frames "
            "again."
        )
    return masks


def _categories(root: Path) -> list[str]:
    return [CATEGORY] if (root / VIDEOS).is_dir() or (root / FRAMES).is_dir() else []


def _folder(root: Path, category: str) -> Path:
    return root


def _sources(root: Path, category: str, split: str) -> list[Path]:
    names = [VIDEOS] if split == "train" else [FRAMES, PIXEL_MASKS, FRAME_MASKS]
    return [root / name for name in names if (root / name).is_dir()]


def _scan(root: Path, category: str, split: str) -> ScanResult:
    return _scan_train(root) if split == "train" else _scan_test(root)


def _scan_train(root: Path) -> ScanResult:
    rows, problems = [], []
    for path in sorted((root / VIDEOS).glob("[!.]*.avi")):
        try:
            name = (VIDEOS / path.name).as_posix()
            rows += [Row(f"{name}{INSIDE}{i:06}", "good", "") for i in range(count_frames(path))]
        except InputError as error:
            problems.append(Problem("error", str(error)))
    if not rows and not problems:
        text = (
            f"{root / VIDEOS}: contains no video. Expected SCENE_CLIP.avi, as in 01_001.avi; put "
            "the training videos there."
        )
        problems.append(Problem("error", text))
    return rows, problems


def _scan_test(root: Path) -> ScanResult:
    rows, problems = [], []
    clips = {clip.name for clip in folders(root / FRAMES)}
    masks = {path.stem for path in (root / PIXEL_MASKS).glob("[!.]*.npy")}
    for name in sorted(masks - clips):
        text = (
            f"{root / PIXEL_MASKS / name}.npy: masks without a clip. Expected its frames in "
            f"{root / FRAMES / name}; copy them, or remove the masks."
        )
        problems.append(Problem("error", text))
    for name in sorted(clips):
        try:
            found, warnings = _scan_clip(root, name)
            rows, problems = rows + found, problems + warnings
        except InputError as error:
            problems.append(Problem("error", str(error)))
    if not clips:
        text = (
            f"{root / FRAMES}: contains no clip. Expected SCENE_CLIP/*.jpg, as in 01_0014/000.jpg; "
            "put the test frames there."
        )
        problems.append(Problem("error", text))
    elif rows:
        kinds = {row.defect for row in rows}
        marked = f"clips with masks in {PIXEL_MASKS.as_posix()}"
        problems += both_kinds(root / FRAMES, kinds, "good", "clips without anomaly", marked)
    return rows, problems


def _scan_clip(root: Path, name: str) -> ScanResult:
    # By number: with more than 1,000 frames, '1000' must come after '999'.
    frames = sorted(image_files(root / FRAMES / name), key=lambda path: (len(path.stem), path.stem))
    if not frames:
        raise InputError(
            f"{root / FRAMES / name}: contains no frame. Expected 000.jpg and so on; copy the clip "
            "again."
        )
    file = PIXEL_MASKS / f"{name}.npy"
    anomalous = [bool(mask.any()) for mask in read_masks(root / file, len(frames))]
    rows = [
        Row(
            (FRAMES / name / frame.name).as_posix(),
            "anomaly" if shown else "good",
            f"{file.as_posix()}{INSIDE}{i:06}" if shown else "",
        )
        for i, (frame, shown) in enumerate(zip(frames, anomalous, strict=True))
    ]
    return rows, _compare_frame_mask(root / FRAME_MASKS / f"{name}.npy", anomalous)


def _compare_frame_mask(path: Path, anomalous: list[bool]) -> list[Problem]:
    """Compare the set's frame labels, if it has them, with its pixel masks."""
    if not path.exists():
        return []
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        return [Problem("warning", f"{path}: cannot be read ({error}), and is ignored.")]
    if labels.shape != (len(anomalous),):
        other = f"has the shape {labels.shape}, the clip {len(anomalous)} frames"
    elif differ := int(((labels > 0) != np.array(anomalous)).sum()):
        other = f"differs from the pixel masks in {differ} of {len(anomalous)} frames"
    else:
        return []
    return [Problem("warning", f"{path}: {other}. Labels are taken from the pixel masks.")]


def _inside(path: Path, indices: Sequence[int]) -> Iterator[np.ndarray]:
    if path.suffix == ".npy":
        masks = read_masks(path)
        yield from (np.asarray(masks[i]) for i in indices)
    else:
        yield from decode(path, indices)


LAYOUT = Layout(
    _categories,
    _scan,
    _sources,
    folder=_folder,
    inside=_inside,
    annotation="pixels",
    expected=f"{VIDEOS.as_posix()}/*.avi, {FRAMES.as_posix()}/CLIP/*.jpg and "
    f"{PIXEL_MASKS.as_posix()}/CLIP.npy",
)
