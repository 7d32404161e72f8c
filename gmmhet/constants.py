"""Names that the Scipion side shares."""

#: Scipion variable: the shell command that activates the environment of the engine; empty: the engine runs in Scipion's own Python
GMMHET_ENV_ACTIVATION = "GMMHET_ENV_ACTIVATION"
#: name of the environment and of the file that `scipion3 installb gmmhet` leaves when it is done
ENV_NAME = "gmmhet-%s"
ENV_READY = "environment_ready"
ENV_PYTHON = "3.11"
#: name of the distribution, whose metadata list what the engine needs
DISTRIBUTION = "scipion-em-gmmhet"
#: module that only the engine needs: where it can be found, the engine can run
ENGINE_MARK = "tensorflow"

#: FlexInfo of everything this plugin makes: program name, and the attribute that holds the run folder of the trained model
#: (of the fitted Gaussians, on pseudo-atoms), relative to the project
PROGRAM = "GMM"
MODEL_FOLDER = "modelFolder"
GMM_FOLDER = "gmmFolder"
#: attributes of the particles of a trained set
COPIES = "_gmmCopies"
AGREEMENT = "_gmmAgreement"
NEUTRAL_AGREEMENT = "_gmmNeutralAgreement"
HELD_OUT = "_gmmHeldOut"
#: attribute of the particles of a class: the symmetry copies (from 0) that fell into that class
COPIES_IN_CLASS = "_gmmCopiesInClass"
#: attribute of the particles of a class found by image: how probable that class is for the particle
PROBABILITY = "_gmmProbability"
