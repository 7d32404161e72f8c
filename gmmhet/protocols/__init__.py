"""The protocols, one file each."""
from gmmhet.protocols.protocol_analyze import GmmHetProtAnalyze
from gmmhet.protocols.protocol_base import GmmHetProtBase
from gmmhet.protocols.protocol_fit import GmmHetProtFit
from gmmhet.protocols.protocol_reconstruct import GmmHetProtReconstruct
from gmmhet.protocols.protocol_refine import GmmHetProtRefine
from gmmhet.protocols.protocol_train import GmmHetProtTrain

__all__ = ["GmmHetProtAnalyze", "GmmHetProtBase", "GmmHetProtFit", "GmmHetProtReconstruct",
           "GmmHetProtRefine", "GmmHetProtTrain"]
