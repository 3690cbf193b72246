import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from bignas_tf.training.losses import label_cross_entropy, mixed_targets, soft_cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3.0, size=(6, 5))
TEACHER = RNG.normal(scale=3.0, size=(6, 5))
LABELS = np.array([0, 4, 2, 2, 1, 3], np.int32)
PARTNERS = LABELS[::-1]
SHARES = np.array([256, 0, 128, 1, 255, 77], np.int32)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def smoothed(labels, classes, smoothing):
    return (1 - smoothing) * np.eye(classes)[labels] + smoothing / classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_label_loss_is_the_cross_entropy_of_each_example(smoothing):
    expected = -(smoothed(LABELS, 5, smoothing) * np.log(softmax(LOGITS))).sum(-1)
    loss = label_cross_entropy(LABELS, LOGITS, smoothing)
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_loss_has_gradient_prediction_minus_target(smoothing):
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = label_cross_entropy(LABELS, logits, smoothing)
    expected = softmax(LOGITS) - smoothed(LABELS, 5, smoothing)
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-14)


def test_mixed_targets_are_the_shares_of_both_labels():
    targets = mixed_targets(LABELS, PARTNERS, SHARES, 5)
    share = SHARES[:, None] / 256
    expected = share * np.eye(5)[LABELS] + (1 - share) * np.eye(5)[PARTNERS]
    assert targets.dtype == tf.float32
    np.testing.assert_array_equal(targets, expected)
    np.testing.assert_array_equal(np.sum(targets, axis=-1), 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_loss_of_mixed_targets_is_the_mean_of_both_labels_losses(smoothing):
    targets = mixed_targets(LABELS, PARTNERS, SHARES, 5)
    own, other = (label_cross_entropy(y, LOGITS, smoothing) for y in (LABELS, PARTNERS))
    share = SHARES / 256
    np.testing.assert_allclose(
        label_cross_entropy(targets, LOGITS, smoothing), share * own + (1 - share) * other, 1e-13
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_loss_has_gradient_prediction_minus_probabilities(smoothing):
    probabilities, logits = softmax(TEACHER), tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = label_cross_entropy(probabilities, logits, smoothing)
    expected = softmax(LOGITS) - ((1 - smoothing) * probabilities + smoothing / 5)
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_probabilities_give_exactly_the_loss_of_the_label(smoothing):
    np.testing.assert_array_equal(
        label_cross_entropy(np.eye(5, dtype=np.float32)[LABELS], LOGITS, smoothing),
        label_cross_entropy(LABELS, LOGITS, smoothing),
    )


@pytest.mark.parametrize("name", ["labels", "partners", "shares"])
def test_an_argument_of_mixing_out_of_range_makes_its_own_row_and_loss_nan(name):
    arguments = {"labels": LABELS, "partners": PARTNERS, "shares": np.full(6, 256)}
    arguments[name] = arguments[name].copy()
    arguments[name][[1, 4]] = -1, 257 if name == "shares" else 5
    targets = mixed_targets(**arguments, classes=5)
    bad = np.array([False, True, False, False, True, False])
    np.testing.assert_array_equal(np.isnan(targets), np.repeat(bad[:, None], 5, axis=1))
    np.testing.assert_array_equal(np.isnan(label_cross_entropy(targets, LOGITS, 0.1)), bad)


def test_soft_loss_is_the_cross_entropy_against_the_teachers_prediction():
    expected = -(softmax(TEACHER) * np.log(softmax(LOGITS))).sum(-1)
    loss = soft_cross_entropy(TEACHER, LOGITS)
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, expected, rtol=1e-13)


def test_soft_loss_trains_the_student_only():
    teacher, student = tf.constant(TEACHER), tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        loss = soft_cross_entropy(teacher, student)
    to_teacher, to_student = tape.gradient(loss, [teacher, student])
    assert to_teacher is None
    np.testing.assert_allclose(to_student, softmax(LOGITS) - softmax(TEACHER), atol=1e-14)


def test_soft_loss_is_least_where_the_student_equals_the_teacher():
    prediction = softmax(TEACHER)
    entropy = -(prediction * np.log(prediction)).sum(-1)
    np.testing.assert_allclose(soft_cross_entropy(TEACHER, TEACHER), entropy, rtol=1e-12)
    assert (np.asarray(soft_cross_entropy(TEACHER, LOGITS)) > entropy).all()


def test_losses_of_large_float32_logits_are_exact():
    logits = np.array([[3e4, 0.0, -3e4]], np.float32)
    assert label_cross_entropy(np.array([0]), logits).numpy() == [0.0]
    assert label_cross_entropy(np.array([2]), logits).numpy() == [6e4]
    assert soft_cross_entropy(logits, logits).numpy() == [0.0]
    assert soft_cross_entropy(-logits, logits).numpy() == [6e4]


def test_gradients_of_large_float32_logits_are_finite():
    logits = tf.constant([[3e4, 0.0, -3e4]], tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        losses = label_cross_entropy(np.array([2]), logits), soft_cross_entropy(-logits, logits)
    for loss in losses:
        np.testing.assert_array_equal(tape.gradient(loss, logits), [[1.0, 0.0, -1.0]])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_logits_give_the_float32_losses(dtype):
    half, teacher = LOGITS.astype(dtype), TEACHER.astype(dtype)
    whole = half.astype(np.float32)
    by_labels = label_cross_entropy(LABELS, half, 0.1)
    by_teacher = soft_cross_entropy(teacher, half)
    assert by_labels.dtype == by_teacher.dtype == tf.float32
    np.testing.assert_array_equal(by_labels, label_cross_entropy(LABELS, whole, 0.1))
    np.testing.assert_array_equal(by_teacher, soft_cross_entropy(teacher.astype("f4"), whole))


def test_a_label_out_of_range_makes_its_own_loss_nan():
    loss = label_cross_entropy(np.array([0, 5, 2, -1, 1, 3]), LOGITS, 0.1)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False, True, False, False])


def test_losses_are_the_same_inside_a_traced_function():
    signature = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 5], tf.float64)]
    traced = tf.function(label_cross_entropy, input_signature=signature)
    np.testing.assert_allclose(traced(LABELS, LOGITS), label_cross_entropy(LABELS, LOGITS))


def test_mixed_losses_are_the_same_inside_a_traced_function():
    def loss(labels, partners, shares, logits):
        return label_cross_entropy(mixed_targets(labels, partners, shares, 5), logits)

    signature = [tf.TensorSpec([None], tf.int32)] * 3 + [tf.TensorSpec([None, 5], tf.float64)]
    arguments = LABELS, PARTNERS, SHARES, LOGITS
    traced = tf.function(loss, input_signature=signature)
    np.testing.assert_allclose(traced(*arguments), loss(*arguments))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_cross_entropy(LABELS, LOGITS, 1.0), r"`label_smoothing`.*\[0, 1\)"),
        (lambda: label_cross_entropy(LABELS.astype("f4"), LOGITS), "`labels` must be integers"),
        (lambda: label_cross_entropy(LABELS[:, None], LOGITS), "`labels` must be integers"),
        (lambda: label_cross_entropy(TEACHER[:, :4], LOGITS), r"`labels`.*\(batch, 5\)"),
        (lambda: label_cross_entropy(np.eye(6, 5, dtype=int), LOGITS), "`labels` must be integers"),
        (lambda: mixed_targets(TEACHER, PARTNERS, SHARES, 5), "`labels` must be integers"),
        (lambda: mixed_targets(LABELS, PARTNERS[:, None], SHARES, 5), "`partners` must be"),
        (lambda: mixed_targets(LABELS, PARTNERS, SHARES / 256, 5), "`shares` must be integers"),
        (lambda: mixed_targets(LABELS, PARTNERS, SHARES, 0), "`classes` must be an integer"),
        (lambda: label_cross_entropy(LABELS, LOGITS[0]), "`logits` must be of shape"),
        (lambda: soft_cross_entropy(TEACHER[0], LOGITS), "`teacher_logits` must be of shape"),
        (lambda: soft_cross_entropy(TEACHER[:, :4], LOGITS), "`student_logits`.*teacher's 4"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message + ".*Received: "):
        call()
