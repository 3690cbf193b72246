"""Networks finetuned for their file: rounded, pruned or clustered in training, by TFMOT."""
