"""The viewers, one file per protocol, and the pictures they show, one file per thing looked at."""
from gmmhet.viewers.viewer_analyze import GmmHetViewerAnalyze
from gmmhet.viewers.viewer_fit import GmmHetViewerFit
from gmmhet.viewers.viewer_reconstruct import GmmHetViewerReconstruct
from gmmhet.viewers.viewer_refine import GmmHetViewerRefine
from gmmhet.viewers.viewer_train import GmmHetViewerTrain

__all__ = ["GmmHetViewerAnalyze", "GmmHetViewerFit", "GmmHetViewerReconstruct", "GmmHetViewerRefine", "GmmHetViewerTrain"]
