"""When which parameters vary: the leading one first, the others when they are worth it."""

#: parts of the epochs after which the columns that do not lead begin to vary, and after which they have to be worth it
LEAD = 0.3, 0.5
#: share of the gain by which they have to add to it
WORTH = 0.05
