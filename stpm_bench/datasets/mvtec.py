"""MVTec AD's categories, and how many images each has."""

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
)
CATEGORIES = TEXTURES + OBJECTS

# Published numbers of train and test images.
COUNTS: dict[str, tuple[int, int]] = {
    "carpet": (280, 117),
    "grid": (264, 78),
    "leather": (245, 124),
    "tile": (230, 117),
    "wood": (247, 79),
    "bottle": (209, 83),
    "cable": (224, 150),
    "capsule": (219, 132),
    "hazelnut": (391, 110),
    "metal_nut": (220, 115),
    "pill": (267, 167),
    "screw": (320, 160),
    "toothbrush": (60, 42),
    "transistor": (213, 100),
    "zipper": (240, 151),
}
