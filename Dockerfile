# An image in which `batchchat` is the command. For torch without CUDA, give its index:
#   docker build --build-arg TORCH_INDEX="$TORCH_CPU_INDEX" --tag batchchat .
FROM python:3.11-slim
ARG TORCH_INDEX=""
WORKDIR /opt/batchchat
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY batchchat batchchat
COPY recipes recipes
COPY data data
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --constraint constraints.txt torch --index-url "$TORCH_INDEX"; fi \
 && pip install --no-cache-dir --constraint constraints.txt '.[cpu,eval]'
WORKDIR /work
ENTRYPOINT ["batchchat"]
