"""Text of tables as LaTeX: special characters escaped, mathematics in math mode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

# what stands for itself nowhere in LaTeX; longer keys first, so that ŵ_i is one symbol
SYMBOLS: Mapping[str, str] = MappingProxyType({
    "σ²_eff": r"$\sigma^2_{\mathrm{eff}}$",
    "Δŵ_i": r"$\Delta\hat{w}_i$",
    "Δŵ_e": r"$\Delta\hat{w}_e$",
    "λ_ref": r"$\lambda_{\mathrm{ref}}$",
    "λ_reg": r"$\lambda_{\mathrm{reg}}$",
    "λ_kl": r"$\lambda_{\mathrm{kl}}$",
    "L_cls": r"$L_{\mathrm{cls}}$",
    "L_kl": r"$L_{\mathrm{kl}}$",
    "L_reg": r"$L_{\mathrm{reg}}$",
    "λ_1": r"$\lambda_1$",
    "λ_2": r"$\lambda_2$",
    "ŵ_i": r"$\hat{w}_i$",
    "ŵ_e": r"$\hat{w}_e$",
    "ŵ": r"$\hat{w}$",
    "σ²": r"$\sigma^2$",
    "Δ": r"$\Delta$",
    "λ": r"$\lambda$",
    "ν": r"$\nu$",
    "ε": r"$\varepsilon$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "±": r"$\pm$",
    "†": r"$^{\dagger}$",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "…": r"\ldots{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    '"': "''",  # a straight one would need another font encoding
})
_SYMBOL = re.compile("|".join(re.escape(key) for key in sorted(SYMBOLS, key=len, reverse=True)))
_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_NUMERIC = re.compile(rf"{_NUMBER}(?: ± {_NUMBER})?†?|\[{_NUMBER}, {_NUMBER}\]")


def latex_text(text: str) -> str:
    """Running text: every special character escaped, the symbols of the paper in math mode."""
    return _SYMBOL.sub(lambda found: SYMBOLS[found.group()], text)


def latex_cell(cell: str) -> str:
    """A cell: a number with sign and spread is one formula (a true minus, no stray spaces), anything else is text."""
    if cell == "-":
        return "--"
    if _NUMERIC.fullmatch(cell):
        return "$" + cell.replace("±", r"\pm").replace("†", r"^{\dagger}") + "$"
    if cell.startswith("  "):  # an indented row name
        return r"\quad " + latex_cell(cell.strip())
    # a row's first cell follows the \\ of the row before, which would take a bracket or star for its argument
    return ("{}" if cell[:1] in ("[", "*") else "") + latex_text(cell)
