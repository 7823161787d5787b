# A Fractal task: the first of its units writes into the folder $1 what the kernel tells of it.
# (While a child starts, a shell blocks all signals: so the child tells those that it inherits.)
mkdir "$1/unit" || exit 0
for name in environ cmdline limits; do
    cat "/proc/$$/$name" > "$1/unit/$name"
done
cat /proc/self/status > "$1/unit/status"
for name in cwd fd/0 fd/1 fd/2; do
    readlink "/proc/$$/$name" > "$1/unit/${name#fd/}"
done
ls "/proc/$$/fd" > "$1/unit/open"
