"""What training maximises: bounds on the evidence, and the description length of the decoder."""
