"""Training a table by an optimiser under test, on the problem of `optimizer_oracle`."""

from optimizer_oracle import PULL

from tf_compemb import optimizers
from tf_compemb._keras import BACKEND, LEGACY, Layer, keras
from tf_compemb.storage.table_rows import table_of

if BACKEND == "tensorflow":
    import tensorflow as tf

    from tf_compemb.storage.current_variable import rows_as_stored


def make_optimizer(name, learning_rate=None, **options):
    """An optimiser by name, with Keras' own start of Adagrad's accumulators, as in the oracle."""
    if name.endswith("adagrad"):
        options = {"initial_accumulator_value": 0.1, **options}
    return optimizers.get(name, learning_rate, **options)


def make_table(values, dtype="float32", by_rows=True):
    """A trainable variable of the runtime; `by_rows` marks it as read by rows."""
    if LEGACY:
        table = tf.Variable(tf.cast(values, dtype), name="table")
    else:
        table = keras.Variable(values, dtype=dtype, name="table")
    if by_rows:
        table_of(table)
    return table


def raw(variable):
    """The `tf.Variable` of a variable."""
    return variable if LEGACY else variable.value


def read(table, ids):
    """Rows as a layer reads them."""
    return table_of(table)._corrected(stored_rows(table, ids), ids)


def stored_rows(table, ids=None):
    """Rows as they are kept, whatever they lack."""
    with rows_as_stored():
        return tf.gather(raw(table), range(table.shape[0]) if ids is None else ids)


def apply(optimizer, gradients, variables):
    """One step. (tf_keras has no `apply`.)"""
    optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))


def apply_slices(optimizer, table, ids, values):
    """One step on a sparse gradient."""
    slices = tf.IndexedSlices(
        tf.constant(values, table.dtype), tf.constant(ids), tuple(table.shape)
    )
    apply(optimizer, [slices], [table])


def make_step(optimizer, table, target):
    """A compiled training step, of row numbers and noise."""
    target = tf.constant(target, table.dtype)

    @tf.function
    def step(ids, noise):
        with tf.GradientTape() as tape:
            rows = read(table, ids)
            off = rows - tf.gather(target, ids)
            loss = tf.reduce_sum(PULL / 2 * off**2 + noise * rows)
        apply(optimizer, tape.gradient(loss, [raw(table)]), [table])

    return step


def train_range(optimizer, table, problem, steps):
    """Trains on the given steps of a problem; the optimiser is built before."""
    step = make_step(optimizer, table, problem.target)
    for t in steps:
        step(tf.constant(problem.ids[t]), tf.constant(problem.noise[t], table.dtype))


def train(optimizer, problem, dtype):
    """The table after all steps of a problem."""
    table = make_table(problem.start, dtype)
    optimizer.build([table])
    train_range(optimizer, table, problem, range(len(problem.ids)))
    return table.numpy()


class RowTable(Layer):
    """The least layer that reads a table by rows: ids (n,) -> (n, width)."""

    def __init__(self, rows, width, **kwargs):
        super().__init__(**kwargs)
        self.rows, self.width = rows, width

    def build(self, input_shape):
        shape = (self.rows, self.width)
        self.table = self.add_exact_weight("table", shape, "uniform", "float32", True)
        table_of(self.table)
        self.built = True

    def call(self, ids):
        return tf.cast(read(self.table, tf.cast(ids, "int32")), self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.width)

    def get_config(self):
        return {**super().get_config(), "rows": self.rows, "width": self.width}
