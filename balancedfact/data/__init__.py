"""Tables that people hold read as problems, and solutions turned into answers that they can use."""

from balancedfact.data._complete import complete
from balancedfact.data._panel import PanelEffect, panel_effect, panel_path

__all__ = ["PanelEffect", "complete", "panel_effect", "panel_path"]
