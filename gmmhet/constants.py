"""Names that the modules of the Scipion side share."""

#: Scipion variable: the shell command that activates the engine's environment; empty: the engine runs in
#: Scipion's own Python
GMMHET_ENV_ACTIVATION = "GMMHET_ENV_ACTIVATION"
#: name of the conda environment, and of the file that `scipion3 installb gmmhet` writes when it has finished
ENV_NAME = "gmmhet-%s"
ENV_READY = "environment_ready"
ENV_PYTHON = "3.11"
#: name of the distribution, whose metadata list what the engine needs
DISTRIBUTION = "scipion-em-gmmhet"
#: module that only the engine needs: a Python that has it can run the engine
ENGINE_MARK = "tensorflow"

#: FlexInfo of all objects of this plugin: program name, and the attribute that holds the run folder of the
#: trained model (of the neutral model, on pseudo-atoms), relative to the project
PROGRAM = "GMM"
MODEL_FOLDER = "modelFolder"
GMM_FOLDER = "gmmFolder"
#: attributes of the particles of a training's output
COPIES = "_gmmCopies"
AGREEMENT = "_gmmAgreement"
NEUTRAL_AGREEMENT = "_gmmNeutralAgreement"
HELD_OUT = "_gmmHeldOut"
#: attribute of the particles of a class: the particle's symmetry copies (from 0) in that class
COPIES_IN_CLASS = "_gmmCopiesInClass"
#: attribute of the particles of a class, where classes were assigned by image: probability of that class
PROBABILITY = "_gmmProbability"
