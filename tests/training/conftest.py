import tensorflow as tf

# Two devices for tests of replicas; it has to be said before TensorFlow runs anything.
(_CPU,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 2)
