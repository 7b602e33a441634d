"""Several JAX devices on one processor, for tests in processes of their own."""

import os


def host_devices(count: int) -> dict[str, str]:
    """Environment of a process with this many devices, which compiles as the tests do."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
