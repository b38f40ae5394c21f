"""`python -m tf_compemb`: the same as the console script `tf-compemb`."""

import sys

from tf_compemb.command_line import main

if __name__ == "__main__":
    sys.exit(main())
