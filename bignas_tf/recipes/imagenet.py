r"""ImageNet in the space `bignas`: four children a step, 360 epochs. Not run by us.

No accuracy, time or memory is known of this recipe; `bignas train --dry_run` estimates the last two
on your machine. It holds every hyper-parameter of the method, and where each comes from: [P] the
paper (Yu et al., ECCV 2020), [R] public reproductions, [?] known from neither, chosen by us.

- space: Table 1, resolutions 192 to 320 [P], of which training samples all but 256 [R].
- sandwich rule: biggest, smallest and 2 random children a step, one update [P]; the others learn
  from the biggest one's soft predictions only, at temperature 1 [P].
- initialization: last scale of each residual branch 0, a shortcut in every block [P].
- rate: 0.256 for a batch of 4,096, times 0.97 every 2.4 epochs [R], constant from 5 % of the
  first rate on [P]; linear warm-up [R] over 5 epochs [?]. For another batch scale `initial` alike.
- epochs: 360, reproductions used 360 to 450 [R]; the paper's number was not recovered.
- optimizer: RMSProp, decay 0.9 [P], momentum 0.9 [?], epsilon 1e-3 with mean squares from 1 [P].
  Reproductions used SGD with Nesterov momentum [R]:
  --set='optimizer={"kind": "sgd", "momentum": 0.9, "nesterov": true}'
- regularization: dropout 0.2, of the space, and L2 1e-5 in the biggest child's loss alone [P];
  label smoothing 0.1 of its labels [R].
- augmentation: AutoAugment [R], here what EfficientNet's code calls v0, with the ranges of that
  code and its grey 128 from outside [?]; one of its translations is of 225 pixels, whatever the
  image size. Inception's crop of at least 8 % and flip [?].
- images: crops are resized to 320 pixels, the biggest resolution, and from there to that of each
  child [?]; selection and tests see the centre square [?].
- batch norm: statistics of a child re-estimated [P] over 2,048 training images [?].
- selection: on training images held out [P], 10,000 of them [?].
- precision: float32 [?]; --set=precision=bfloat16 for accelerators that have it.

The images stay encoded on the disk. A folder has train/CLASS/* and val/CLASS/*; a TFDS data set has
to be prepared for random access: --data=tfds:imagenet2012,test=validation,file_format=array_record

bignas train --recipe=imagenet --workdir=runs/imagenet --data=folder:/data/imagenet
"""

from bignas_tf.training.recipe import Recipe

RECIPE = Recipe(
    name="imagenet",
    space="bignas",
    image_size=320,
    epochs=360,
    batch_size=4096,
    optimizer={"kind": "rmsprop", "rho": 0.9, "momentum": 0.9, "epsilon": 1e-3},
    schedule={
        "kind": "exponential",
        "initial": 0.256,
        "rate": 0.97,
        "every_epochs": 2.4,
        "ending_fraction": 0.05,
        "warmup_epochs": 5,
    },
    augmentation={"crop": 0.08, "flip": True, "operations": "autoaugment_v0", "value": 128},
    random_children=2,
    label_smoothing=0.1,
    weight_decay=1e-5,
    held_out=10_000,
    calibration_images=2048,
    evaluate_every=5,
)
