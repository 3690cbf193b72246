"""From a finished Keras model to a TFLite file that is checked, run and timed."""
