"""The viewers, one file per protocol, and the figures that they draw, one file per subject."""
from gmmhet.viewers.viewer_analyze import GmmHetViewerAnalyze
from gmmhet.viewers.viewer_fit import GmmHetViewerFit
from gmmhet.viewers.viewer_reconstruct import GmmHetViewerReconstruct
from gmmhet.viewers.viewer_refine import GmmHetViewerRefine
from gmmhet.viewers.viewer_train import GmmHetViewerTrain

__all__ = ["GmmHetViewerAnalyze", "GmmHetViewerFit", "GmmHetViewerReconstruct", "GmmHetViewerRefine",
           "GmmHetViewerTrain"]
