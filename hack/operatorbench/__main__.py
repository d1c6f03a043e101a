"""Started as `python -m operatorbench` by `hack/bench/operator`."""

import sys

from operatorbench.cli import main

sys.exit(main())
