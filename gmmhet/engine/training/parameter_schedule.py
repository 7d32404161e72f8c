"""Which parameters vary when: the leading one first, then the others little by little, and those for good
that are worth it."""
from dataclasses import dataclass

#: parts of the epochs after which the parameters that do not lead begin to vary, and after which they have to
#: be worth it
ALONE_SHARE, ALL_SHARE = 0.3, 0.5
#: share of the gain by which they have to add to it
WORTH = 0.05


@dataclass(frozen=True)
class ParameterSchedule:
    """The phases of a training of so many epochs, which count from 1.

    In the first, the leading parameter varies alone; in the second the gates of the others open; in the third
    all vary that proved to be worth it when it began.
    """

    epochs: int

    @property
    def alone(self) -> int:
        """The last epoch in which the leading parameter varies alone."""
        return int(ALONE_SHARE * self.epochs)

    @property
    def all_open(self) -> int:
        """The first epoch in which all parameters vary."""
        return max(self.alone + 1, round(ALL_SHARE * self.epochs))

    def share(self, epoch: int) -> float:
        """How much of what the decoder says of the parameters that do not lead counts in an epoch, from 0 to
        1."""
        return float(min(1.0, max(0, epoch - self.alone) / (self.all_open - self.alone)) ** 2)

    def is_opening(self, epoch: int) -> bool:
        """Whether the others are coming in: such an epoch is not judged."""
        return self.alone < epoch < self.all_open

    def decides(self, epoch: int) -> bool:
        """Whether after this epoch it is decided which parameters are worth it."""
        return epoch >= self.all_open


def worth_it(gain: float, without: float) -> bool:
    """Whether parameters add enough to what held-out particles gain without them."""
    return gain >= without + WORTH * abs(without)
