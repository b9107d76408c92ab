"""The command `colorized`, which is `python -m colorized`, too."""


def main() -> None:
    """Entry point: every error is one line on stderr."""
    # In here, because a worker process imports the script that started it, and with it this module.
    from colorized import cli

    cli.main()


if __name__ == "__main__":
    main()
