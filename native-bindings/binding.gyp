{
  'targets': [
    {
      'target_name': 'thinlun_native',
      'sources': [
        'src/arguments.c',
        'src/at-once.c',
        'src/copy.c',
        'src/crc32c.c',
        'src/errors.c',
        'src/files.c',
        'src/mmap.c',
        'src/module.c',
        'src/netlink.c',
        'src/pass-fds.c',
        'src/notify.c',
        'src/poll.c',
        'src/process.c',
        'src/uring.c',
        'src/work.c',
      ],
      'defines': ['NAPI_VERSION=9', '_GNU_SOURCE', '_FILE_OFFSET_BITS=64'],
      'cflags': ['-std=c11', '-O2', '-Wall', '-Wextra', '-Wshadow', '-Werror', '-fvisibility=hidden'],
      # node's own flags ask for frame pointers and C++; what matters here is that warnings are never turned off.
      'cflags!': ['-Wno-unused-parameter'],
    },
  ],
}
