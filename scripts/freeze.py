"""Print the exact versions installed beside this interpreter, as pip constraints."""

from importlib.metadata import distributions

HEADER = "# Exact versions of every package, written by `make constraints`."


def main() -> None:
    # A local version (`+cpu`) names one index's build; the public part matches it and every other.
    pins = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version.split("+")[0]
        for dist in distributions()
    }
    pins.pop("medmax-serve", None)
    print(HEADER, *(f"{name}=={version}" for name, version in sorted(pins.items())), sep="\n")


if __name__ == "__main__":
    main()
