"""What can be told of a training command before TensorFlow is imported, which takes seconds."""

from __future__ import annotations

from tf_compemb._signatures import arguments_of_method
from tf_compemb.training.build import check_network, method_options
from tf_compemb.training.command_options import single_method
from tf_compemb.training.dry_run import read_cardinalities
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory


def check_names(options: TrainingOptions) -> None:
    """Whether there are the methods, with those options, and the network that are asked for.

    Args:
        options: With any number of methods.

    Raises:
        UserError: There are not.
    """
    for method in options.embedding:
        single = single_method(options, method)
        method_options(single)
        check_network(single)
    from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS

    given = options.cardinalities
    known = len(read_cardinalities(given) if given else CATEGORICAL_FIELDS)
    for field, settings in options.overrides.items():
        if field not in {f"C{number}" for number in range(1, known + 1)}:
            raise UserError(f"--overrides names {field!r}; the fields are C1 to C{known}.")
        method = settings.get("embedding")
        if isinstance(method, str):
            try:
                arguments_of_method(method)
            except ValueError as error:
                raise UserError(f"--overrides, {field}: {error}") from error


def check_teacher(options: TrainingOptions) -> None:
    """Whether `--distill` names a finished run.

    Raises:
        UserError: It does not.
    """
    if options.distill is not None:
        RunDirectory(options.distill).read_single_config()
        RunDirectory(options.distill).finished_model()


def check_evaluation(run: RunDirectory, path: str) -> None:
    """Whether there are a finished run and a file to evaluate it on.

    Raises:
        UserError: There are not.
    """
    from tf_compemb.data.errors import DataError
    from tf_compemb.data.raw_reader import find_raw_files

    run.read_metrics()
    run.finished_model()
    try:
        find_raw_files(path)
    except DataError as error:
        raise UserError(str(error)) from error
