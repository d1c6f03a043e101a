"""`python -m chatbot_runtime ROLE`: the console script by another name."""

from chatbot_runtime.cli import main

main()
