"""`python -m holdfast.cli`: the same as `holdfast`.

For where the command itself is not on the path; fails as it does.
"""

from holdfast.cli import main

main()
