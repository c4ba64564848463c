# The command line on a CPU, which reads and writes the folder it is called in:
#   docker build -t onnxslim-learn .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" onnxslim-learn analyze model.onnx
FROM python:3.12-slim

COPY . /source
# "[train]" brings torch
ARG EXTRAS=""
RUN pip install --no-cache-dir "/source${EXTRAS}" && rm -rf /source

# any user may be named by --user, with or without a home
RUN useradd --create-home slim
ENV ONNXSLIM_LEARN_CACHE=/tmp/cache
USER slim
WORKDIR /data
ENTRYPOINT ["onnxslim-learn"]
CMD ["--help"]
