"""Colours that can be told apart by those who see few: a ramp from dark to light, and a palette of sixteen.

The ramp goes through ten colours of viridis (Smith and van der Walt, matplotlib, CC0). The palette begins with seven
of Okabe and Ito; the others were searched for the greatest distance in OKLab from all before them, as seen by normal,
protan and deutan eyes (Machado et al. 2009). It repeats after sixteen: never let it speak without a label beside it.
"""

RAMP = "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725".split()
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#6f0b21",
    "#6485ff", "#640064", "#436464", "#b1210b", "#2c21ff", "#a6c8a6", "#000bb1", "#a6e9ff",
)  # fmt: skip
LEVELS = 64
BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

RGB = tuple[float, float, float]


def ramp(share: float) -> RGB:
    """The colour at this share of the ramp, 0 darkest and 1 lightest, each part from 0 to 1."""
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    first, second = (rgb(RAMP[i]) for i in (low, low + 1))
    r, g, b = (a + (b - a) * (place - low) for a, b in zip(first, second, strict=True))
    return r, g, b


def level(value: float, low: float, high: float) -> int:
    """Which of the ramp's `LEVELS` stands for a value between `low` and `high`; the lowest where all are one."""
    return 0 if high <= low else round(min(max((value - low) / (high - low), 0.0), 1.0) * (LEVELS - 1))


def levels() -> str:
    """Style sheet lines: class `vN` of level N, its background and a text colour that can be read on it."""
    lines = []
    for number in range(LEVELS):
        colour = ramp(number / (LEVELS - 1))
        ink = "#000" if contrast(colour, BLACK) > contrast(colour, WHITE) else "#fff"
        lines.append(f".v{number}{{background:{hexed(colour)};color:{ink}}}")
    return "\n".join(lines)


def contrast(one: RGB, other: RGB) -> float:
    """The contrast ratio of two colours, 1 to 21. Source: WCAG 2.1."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: RGB) -> float:
    """The relative luminance of an sRGB colour, 0 to 1."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def rgb(code: str) -> RGB:
    """The parts of a colour's code, with or without #."""
    r, g, b = (int(code.removeprefix("#")[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return r, g, b


def hexed(colour: RGB) -> str:
    """The code of a colour."""
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)
