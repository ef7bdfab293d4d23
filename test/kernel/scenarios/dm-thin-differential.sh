# title: random operations done to the kernel's dm-thin and to ours have the same results, and the pools change hands on the way
# needs: native-bindings/build/Release build/kernel-tests
# timeout: 240
# memory: 2G
. /project/test/kernel/lib.sh

for seed in ${SEEDS:-1 2 3 4 5}; do
  node $PROJECT/build/kernel-tests/test/kernel/differential/main.js $seed ${OPERATIONS:-160}
done
ok "all that the two pools hold was the same at every comparison"
kernel_log_clean
