"""What is compiled to kernels. Only `machine_code` imports it, in a process that finds a kernel nowhere."""
