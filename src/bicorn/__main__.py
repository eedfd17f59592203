"""`python -m bicorn`."""

import sys

from bicorn.cli.main import main

sys.exit(main())
