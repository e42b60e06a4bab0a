"""The published figures, and nine beyond them, one declaration each."""

from balancedfact.experiments.figures import _label_noise
from balancedfact.experiments.figures._batch import BATCH_SIZE
from balancedfact.experiments.figures._connectivity import CONNECTIVITY
from balancedfact.experiments.figures._critical_step import CRITICAL_STEP
from balancedfact.experiments.figures._depth import FIGURE_2
from balancedfact.experiments.figures._edge import EDGE
from balancedfact.experiments.figures._flow_ratio import FLOW_RATIO
from balancedfact.experiments.figures._gelu import FIGURE_7
from balancedfact.experiments.figures._label_noise_limit import DEEP_LABEL_NOISE, LABEL_NOISE_LIMIT
from balancedfact.experiments.figures._noise_chooses import NOISE_CHOOSES
from balancedfact.experiments.figures._radius import RADIUS
from balancedfact.experiments.figures._sweep import FIGURE_1, FIGURE_3, FIGURE_4, FIGURE_5
from balancedfact.experiments.figures._underdetermined import FIGURE_6

_REGRESSION = (FIGURE_1, FIGURE_2, FIGURE_3, FIGURE_4, FIGURE_5, FIGURE_6, FIGURE_7)
_SENSING = (_label_noise.SENSING_1, _label_noise.SENSING_2)
_BEYOND = (CRITICAL_STEP, FLOW_RATIO, LABEL_NOISE_LIMIT)
_CHOICE = (EDGE, NOISE_CHOOSES, BATCH_SIZE, RADIUS, CONNECTIVITY, DEEP_LABEL_NOISE)
FIGURES = {each.name: each for each in (*_REGRESSION, *_SENSING, *_BEYOND, *_CHOICE)}

__all__ = ["FIGURES"]
