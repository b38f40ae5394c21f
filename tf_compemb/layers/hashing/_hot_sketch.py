"""HotSketch: which ids have received most, kept in a few slots for each of many buckets.

A bucket is sorted by score, the highest first. An id that is there adds to its score; a new one
takes an empty slot, or the last one with that one's score added to its own, unless an important
id is there (the space-saving algorithm). An id whose score reaches the threshold while it is
there is promoted: it is given a free row. TensorFlow only, since gradients feed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tf_compemb._keras import BACKEND

if BACKEND == "tensorflow":
    import tensorflow as tf

# Mass, in thresholds of every bucket, after which scores decay.
_DECAY_AFTER = 10


class Sketch(NamedTuple):
    """The variables of a sketch of w buckets and r rows, and its settings.

    Attributes:
        ids: Integers (w, slots); -1 is an empty slot.
        scores: Float32 (w, slots).
        rows: Int32 (w, slots), the id's row plus one; 0 for none.
        free_rows: Int32 (r,), of which the first `num_free` are free.
        num_free: Int32 (1,).
        mass: Float32 (1,), importance received since the last decay.
        threshold: Score from which an id is important.
        decay: By what scores are multiplied now and then.
    """

    ids: Any
    scores: Any
    rows: Any
    free_rows: Any
    num_free: Any
    mass: Any
    threshold: float
    decay: float

    def update(self, ids: Any, importance: Any, promote: Callable[[Any, Any], None]) -> None:
        """Takes in a batch.

        Args:
            ids: Integers (m,); equal ones count once, with their importance added up.
            importance: Float32 (m,).
            promote: Called with ids and the rows that they are given.
        """
        ids, positions = tf.unique(tf.cast(ids, self.ids.dtype))
        importance = tf.math.unsorted_segment_sum(importance, positions, tf.size(ids))
        buckets = tf.math.floormod(ids, self.ids.shape[0])
        turn = _turns(buckets)

        def take_in(number: Any) -> Any:
            # Buckets are distinct within a turn, so that the order of its ids does not matter.
            now = turn == number
            own_ids, own_importance = tf.boolean_mask(ids, now), tf.boolean_mask(importance, now)
            self._take_in(own_ids, own_importance, tf.boolean_mask(buckets, now), promote)
            return [number + 1]

        turns = tf.reduce_max(tf.concat([turn, [-1]], 0)) + 1
        tf.while_loop(lambda number: number < turns, take_in, [tf.constant(0)])
        self.mass.assign_add([tf.reduce_sum(importance)])
        limit = _DECAY_AFTER * self.ids.shape[0] * self.threshold
        tf.cond(self.mass[0] > limit, self._decay_scores, lambda: 0)

    def _take_in(
        self, ids: Any, importance: Any, buckets: Any, promote: Callable[[Any, Any], None]
    ) -> None:
        slots = self.ids.shape[1]
        known, scores, rows = (tf.gather(v, buckets) for v in (self.ids, self.scores, self.rows))
        is_own, is_empty = known == ids[:, None], known < 0
        present, has_empty = tf.reduce_any(is_own, 1), tf.reduce_any(is_empty, 1)
        place = tf.where(has_empty, _first_true(is_empty), slots - 1)
        place = tf.where(present, _first_true(is_own), place)
        accepted = present | has_empty | (rows[:, -1] == 0)
        here = tf.one_hot(place, slots, on_value=True, off_value=False) & accepted[:, None]
        known = tf.where(here, ids[:, None], known)
        scores = tf.where(here, scores + importance[:, None], scores)

        wanted = here & present[:, None] & (rows == 0) & (scores >= self.threshold)
        asks = tf.reduce_any(wanted, 1)
        turn = tf.cumsum(tf.cast(asks, tf.int32))
        asks &= turn <= self.num_free[0]
        given = tf.gather(self.free_rows, tf.where(asks, self.num_free[0] - turn, 0))
        rows = tf.where(wanted & asks[:, None], given[:, None] + 1, rows)

        order = tf.argsort(scores, direction="DESCENDING", stable=True)
        for variable, values in ((self.ids, known), (self.scores, scores), (self.rows, rows)):
            values = tf.gather(values, order, batch_dims=1)
            variable.scatter_update(tf.IndexedSlices(values, buckets))
        promote(tf.boolean_mask(ids, asks), tf.boolean_mask(given, asks))
        self.num_free.assign_sub([tf.reduce_sum(tf.cast(asks, tf.int32))])

    def _decay_scores(self) -> int:
        self.scores.assign(self.scores * self.decay)
        lost = (self.rows > 0) & (self.scores < self.threshold)
        released = tf.boolean_mask(self.rows, lost) - 1
        places = self.num_free[0] + tf.range(tf.size(released))
        self.free_rows.scatter_update(tf.IndexedSlices(released, places))
        self.num_free.assign_add([tf.size(released)])
        self.rows.assign(tf.where(lost, 0, self.rows))
        self.mass.assign([0.0])
        return 0


def _first_true(marks: Any) -> Any:
    return tf.argmax(tf.cast(marks, tf.int32), 1, output_type=tf.int32)


def _turns(buckets: Any) -> Any:
    """How many earlier ids of a batch fall into the same bucket, (m,) int32."""
    order = tf.argsort(buckets, stable=True)
    ordered = tf.gather(buckets, order)
    begins = tf.concat([[True], ordered[1:] != ordered[:-1]], 0)[: tf.size(buckets)]
    index = tf.range(tf.size(buckets))
    run = tf.cumsum(tf.cast(begins, tf.int32)) - 1
    first = tf.gather(tf.boolean_mask(index, begins), run)
    return tf.scatter_nd(order[:, None], index - first, tf.shape(buckets))
