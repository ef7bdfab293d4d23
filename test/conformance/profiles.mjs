/** The five kinds of LUN and access that it takes until every test of the tool has something to test. */

/**
 * @typedef {object} Profile
 * @property {string} id
 * @property {string} title
 * @property {object} volume What the volumes are created with, beside name and size.
 * @property {boolean} [refusesWrites] A test that wants to write is right to complain of that, and is `refused`.
 * @property {readonly { name: string, secret: string }[]} users Who logs in by CHAP. The first one does all tests, the others those of CHAP.
 */

/** A volume with as many bytes in a physical block as in a logical one. */
const FINE = { logicalBlockSize: 512, physicalBlockSize: 512 };

/** @type {readonly Profile[]} */
export const PROFILES = [
  { id: 'A', title: 'thin LUN, one logical block per physical block', volume: FINE, users: [] },
  {
    id: 'B',
    title: 'thin LUN, eight logical blocks per physical block',
    volume: { logicalBlockSize: 512, physicalBlockSize: 4096 },
    users: [],
  },
  { id: 'C', title: 'removable LUN', volume: { ...FINE, removable: true }, users: [] },
  { id: 'D', title: 'read-only LUN', volume: { ...FINE, readOnly: true }, refusesWrites: true, users: [] },
  {
    id: 'E',
    title: 'CHAP, with a plain user name and with names that begin like numbers in hexadecimal and base64',
    volume: FINE,
    users: [
      { name: 'alice', secret: 'plain-secret-1' },
      { name: '0xA11CE', secret: 'hex-secret-22' },
      { name: '0bQWxpY2U=', secret: 'base64-secret-3' },
    ],
  },
];
