import { SaxesParser } from 'saxes';
import { describe, expect, it } from 'vitest';
import { depthFigure, growthFigure } from '../../bench/lib/figures.mjs';
import type { Sample, SideResult } from '../../bench/lib/measure.mjs';
import type { Result } from '../../bench/lib/report.mjs';
import { chart, ticksFor } from '../../bench/lib/svg.mjs';

interface Element {
  name: string;
  attributes: Record<string, string>;
  text: string;
}

/** Throws where it is not XML. */
function elementsOf(svg: string): Element[] {
  const found: Element[] = [];
  const open: Element[] = [];
  const parser = new SaxesParser();
  parser.on('error', (error) => {
    throw error;
  });
  parser.on('opentag', ({ name, attributes }) => {
    const element = { name, attributes: attributes as Record<string, string>, text: '' };
    found.push(element);
    open.push(element);
  });
  parser.on('text', (text) => {
    const last = open.at(-1);
    if (last) last.text += text;
  });
  parser.on('closetag', () => open.pop());
  parser.write(svg).close();
  return found;
}

const sample = (iops: number): Sample => ({
  iops,
  serverCpuUs: 1e6 / iops,
  latencyUs: { mean: 1, p50: 1, p90: 1, p99: 1, p999: 1 },
});
const side = (name: string, values: number[]): SideResult => ({ name, samples: values.map(sample) });
const result = (plot: Record<string, unknown>, sides: SideResult[]): Result => ({
  id: 'x',
  title: 'x',
  plot,
  sides,
  figures: [],
});

describe('the figures of a benchmark', () => {
  it('have round ticks from zero to at least the largest value', () => {
    expect(ticksFor(97)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticksFor(100)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticksFor(0.3)).toEqual([0, 0.1, 0.2, 0.3]);
    expect(ticksFor(0)).toEqual([0, 1]);
  });

  it('are XML whatever is in a name, with labelled axes and all points inside', () => {
    const points = [0, 1].map((x) => ({ x, y: 10 + x, min: 9, max: 12, isNoisy: false }));
    const panel = {
      title: 'a & b',
      xLabel: '<x>',
      yLabel: '"y"',
      xTicks: ['1', '2'],
      series: [{ name: 'A&B', points }],
    };
    const elements = elementsOf(chart('T < U', [panel, panel], ['note']));
    const texts = elements.map(({ text }) => text);
    for (const text of ['T < U', 'a & b', '<x>', '"y"', 'A&B', 'note']) expect(texts).toContain(text);
    const [width, height] = elements[0]!.attributes['viewBox']!.split(' ').slice(2).map(Number) as [number, number];
    for (const { name, attributes } of elements) {
      if (name !== 'circle') continue;
      expect(Number(attributes['cx'])).toBeGreaterThan(0);
      expect(Number(attributes['cx'])).toBeLessThan(width);
      expect(Number(attributes['cy'])).toBeGreaterThan(0);
      expect(Number(attributes['cy'])).toBeLessThan(height);
    }
  });

  it('draw IOPS by depth for reads and writes, higher where there are more', () => {
    const rows = [1, 32].flatMap((depth) =>
      ['read', 'write'].map((operation) =>
        result({ kind: 'depth', operation, depth }, [side('thinlun', [depth * 1000]), side('tgt', [depth * 100])]),
      ),
    );
    const svg = depthFigure(rows, 'about')!;
    const lines = elementsOf(svg).filter(({ name }) => name === 'polyline');
    expect(lines).toHaveLength(4);
    const ys = lines[0]!.attributes['points']!.split(' ').map((pair) => Number(pair.split(',')[1]));
    expect(ys[1]).toBeLessThan(ys[0]!);
    expect(svg).toContain('thousand IOPS');
    expect(depthFigure([], 'about')).toBeNull();
  });

  it('draw what is too noisy hollow, and say so', () => {
    const noisy = result({ kind: 'growth' }, [side('10k', [100, 500, 10, 900, 50]), side('10M', [100, 100, 100])]);
    const svg = growthFigure([noisy], 'about')!;
    expect(
      elementsOf(svg).filter(({ attributes }) => attributes['fill'] === 'none' && attributes['r']),
    ).not.toHaveLength(0);
    expect(svg).toContain('Hollow');
    expect(growthFigure([result({ kind: 'growth' }, [side('10k', [100, 100, 100])])], 'about')).not.toContain('Hollow');
  });
});
