"""The options that several steps share: their types and their help texts."""

from pathlib import Path
from typing import Annotated, Literal

Device = Annotated[Literal["auto", "cpu", "cuda"], "auto: a GPU if there is one"]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"], "auto: bfloat16 if the hardware supports it natively"
]
Layout = Annotated[
    Literal["mvtec", "visa", "btad", "mpdd", "cifar10_oneclass", "shanghaitech"],
    "how the set's folder is organised",
]
Every = Annotated[int, "use one in this many images of each folder, or frames of each video"]
MaskColour = Annotated[
    str, "R,G,B of a defect in masks, such as 255,0,0; '': every colour but black"
]
Intensity = Annotated[
    str,
    "for more than 8 bits: the values that become 0 and 255, such as 0,4095; '': the range of the "
    "training images",
]
MaxMegapixels = Annotated[
    float, "largest size of an image, in million pixels; a larger one is an error"
]
Threads = Annotated[int, "processor threads; 0: as many as there are cores"]
FitFolder = Annotated[Path, "the folder of the fit: its model, its level maps"]
CellFolder = Annotated[Path, "the folder of the cell: its metrics"]
TestFolder = Annotated[Path, "prepared test images: the folder that 'prepare --split test' wrote"]
TeacherFile = Annotated[Path, "the file that 'teacher' wrote"]
Levels = Annotated[str, "levels, such as 1+2+3"]
SettingsText = Annotated[
    str, "name of a built-in method, or JSON with a method's 'file' and some of its fields"
]
Results = Annotated[Path, "folder of the results"]
