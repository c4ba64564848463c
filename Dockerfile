# The command line on a CPU: docker build -t onnxslim-learn . && docker run --rm -v "$PWD:/data" onnxslim-learn analyze model.onnx
FROM python:3.12-slim

COPY . /source
# "[train]" brings torch
ARG EXTRAS=""
RUN pip install --no-cache-dir "/source${EXTRAS}" && rm -rf /source

RUN useradd --create-home slim
USER slim
WORKDIR /data
ENTRYPOINT ["onnxslim-learn"]
CMD ["--help"]
