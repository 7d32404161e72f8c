"""Settings of a model, and the presets."""

#: axes that the encoder is given
KEPT = 256

#: draws of z from each particle's posterior in the second part of a training
DRAWS = 4
#: networks of the presets; the paper's are from its Methods
NETWORKS = {
    "default": dict(hidden=[256, 256], dropout=0.0, batch_norm=False, l2=0.0, variational=True, encoder_scale=0.3, subspace=KEPT,
                    ahead=True, amplitude_share=2 / 3, description=1.5, draws=DRAWS, looks=0, base=True, averaged=True, unblurred=True),
    "paper": dict(hidden=[512, 512, 512, 512], dropout=0.3, batch_norm=True, l2=1e-3, variational=False, encoder_scale=0.1, subspace=0,
                  ahead=False, amplitude_share=1.0, description=0.0, draws=1, looks=1, base=False, averaged=False, unblurred=False),
}
