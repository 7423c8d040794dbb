"""`python -m learners.engine`."""

from learners.engine.process import main

if __name__ == "__main__":
    main()
