import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { createPool, createVolume, serve, thinlun, thinlunJson } from './command.ts';

const REGISTRANTS = [
  { initiatorPort: 'iqn.y:node1,i,0x00023d000001', targetPort: 1, key: '0000000000000abc' },
  { initiatorPort: 'iqn.y:node2,i,0x00023d000002', targetPort: 1, key: '0000000000000def' },
];
const [{ key: _, ...HOLDER }] = REGISTRANTS as [(typeof REGISTRANTS)[0]];

describe.each(['no server', 'a server'])('with %s, "volume reservations"', (situation) => {
  let dir: string;

  beforeEach(async () => {
    dir = await createPool();
    const { naa } = await createVolume(dir, 'shared');
    await createVolume(dir, 'free');
    const volumes = [{ naa, type: 5, holder: HOLDER, registrants: REGISTRANTS }];
    writeFileSync(join(dir, 'reservations.json'), JSON.stringify({ format: 1, volumes }));
    if (situation === 'a server') await serve([dir]);
  });

  it('shows who has registered with which volume, and who holds it', async () => {
    const { stdout } = await thinlun(['volume', 'reservations', dir]);
    const loggedIn = situation === 'a server' ? 'no ' : '-  ';
    expect(stdout.split('\n').map((line) => line.replaceAll(/ +/g, ' '))).toEqual([
      'VOLUME RESERVATION HOLDS KEY INITIATOR ISID PORT LOGGED IN KEPT',
      `shared write-exclusive-registrants-only yes 0x0000000000000abc iqn.y:node1 00023d000001 1 ${loggedIn.trim()} yes`,
      `shared write-exclusive-registrants-only no 0x0000000000000def iqn.y:node2 00023d000002 1 ${loggedIn.trim()} yes`,
      '',
    ]);
    expect((await thinlun(['volume', 'reservations', dir, 'free'])).stdout).toBe(
      'No registrations and no reservations.\n',
    );
    expect(await thinlun(['volume', 'reservations', dir, 'absent'])).toMatchObject({ code: 1, stdout: '' });
    expect(await thinlunJson('volume', 'reservations', dir, 'free')).toMatchObject([{ volume: 'free', type: null }]);
  });

  it('clears them, of one initiator or of all', async () => {
    const left = await thinlunJson('volume', 'reservations', 'clear', dir, 'shared', '--initiator', 'iqn.y:node1');
    expect(left).toMatchObject({ volume: 'shared', type: null, registrants: [{ initiator: 'iqn.y:node2' }] });
    const cleared = await thinlun(['volume', 'reservations', 'clear', dir, 'shared']);
    expect(cleared.stdout).toBe('Nobody has registered with the volume "shared" any more, and nobody holds it.\n');
    expect((await thinlun(['volume', 'reservations', dir])).stdout).toBe('No registrations and no reservations.\n');
    const none = await thinlun(['volume', 'reservations', 'clear', dir, 'shared', '--initiator', 'iqn.y:node1']);
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toContain('See who has with "thinlun volume reservations');
  });
});
